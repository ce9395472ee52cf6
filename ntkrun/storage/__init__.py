"""Files of a run: atomic writes, lock, checkpoint, log files."""
