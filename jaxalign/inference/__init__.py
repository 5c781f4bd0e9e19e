"""Reading a model: scores of token trees."""
