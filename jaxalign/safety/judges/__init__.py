"""Judges of responses. Each holds to `Judge` (safety/judgements.py), and each can be exchanged for another."""
