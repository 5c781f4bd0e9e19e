"""The train command: its data, its plan, its session, and the pipeline from configuration to results."""
