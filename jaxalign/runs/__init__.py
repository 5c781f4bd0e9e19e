"""The directory of a run: what is written there, its stages, and the display of progress."""
