"""The network, its adapters, and the layout of its weights."""
