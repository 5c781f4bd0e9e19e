"""Devices, several processes, signals and compiled programs."""
