"""The evaluate command: `values.py` asks the questionnaire, and `safety.py` runs the stages of `jobs/harm/`."""
