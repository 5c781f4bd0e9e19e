"""State, step, optimiser, loop and checkpoints of a training stage."""
