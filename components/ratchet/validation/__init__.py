"""The data contract: what a triplet must be before anything is trained on it."""
