"""Matrix products of compiled steps."""
