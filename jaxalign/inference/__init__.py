"""Inference: sampling from a model, and scoring token trees with it."""
