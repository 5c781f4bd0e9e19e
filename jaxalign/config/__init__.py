"""Configuration: one file for each command, read into frozen dataclasses at the door."""
