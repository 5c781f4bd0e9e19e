"""The harm in a model's responses: judges that are measured, metrics, mitigation, and what goes with which value."""
