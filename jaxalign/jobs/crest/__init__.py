"""The crest command. Each stage has its own file, with the name that `stage=` takes."""
