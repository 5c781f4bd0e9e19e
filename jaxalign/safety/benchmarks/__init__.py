"""Benchmarks of harm as data: where their prompts come from, how they are asked, and what is measured."""
