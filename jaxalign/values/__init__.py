"""Human values: what they are, which scores to aim at, and how a model is trained towards them."""
