"""CREST (Lee et al., NAACL 2025, arXiv 2411.06387): self-training on a model's own rationales."""
