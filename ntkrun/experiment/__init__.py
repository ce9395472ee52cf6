"""One run from configuration to results on disk."""
