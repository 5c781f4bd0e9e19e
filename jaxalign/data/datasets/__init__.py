"""One file for each source of data; each returns arguments or examples, and knows nothing of the model."""
