"""Pretrained models and adapters as files: from wherever they come to arrays, and back."""
