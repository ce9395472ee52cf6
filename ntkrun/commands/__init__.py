"""The commands for what comes after training: predictions, export, and watching a run."""
