"""Train physics-informed neural networks whose loss terms are weighted by the neural tangent kernel."""

__version__ = "0.1.0"
