"""The crest command: a file for each stage, named as `stage=` names it."""
