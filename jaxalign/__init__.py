"""jaxalign: align language models to human values, and train them on their own rationales, in JAX."""

__version__ = "0.1.0"
