"""Types, errors and exit codes, user frames of tracebacks, torchrun's environment. Imports nothing heavy."""
