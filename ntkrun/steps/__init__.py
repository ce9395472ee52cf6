"""Training steps: operation by operation, or as compiled graphs."""
