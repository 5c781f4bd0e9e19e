"""Readers of data sets, one file for each kind. They return examples, preference pairs or questions."""
