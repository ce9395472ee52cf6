"""The problems of the PINNacle benchmark, arXiv 2306.08827, as problems of one's own."""
