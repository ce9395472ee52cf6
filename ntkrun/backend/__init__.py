"""Matrix products of compiled steps, and the tracing flag."""
