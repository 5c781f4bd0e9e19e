"""The network, its weights and its tokenizer: from wherever they come to arrays."""
