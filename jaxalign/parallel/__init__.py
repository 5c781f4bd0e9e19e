"""Devices and compiled programs."""
