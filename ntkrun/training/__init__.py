"""The training loop and what it keeps: collocation points, evaluation, progress, records, finite checks."""
