"""The work of the commands: the only room that knows configuration, console and run directory together."""
