"""Configuration: one file for each command, which is read into frozen dataclasses before the command begins."""
