"""The stages of a benchmark of harm: responses are generated, judged, and added up."""
