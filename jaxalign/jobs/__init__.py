"""What the commands do: the one room that knows configuration, console and run directory together."""
