"""What ``scripts/time_to_accuracy.py`` measures: the problems as other programs see them, and these programs."""
