"""The programs of ``scripts/benchmark_training.py``, the cases they train, and what becomes of the times."""
