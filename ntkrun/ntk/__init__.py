"""The neural tangent kernel: traces, sketches, finite differences, spectra."""
