"""The data contract: check triplets before training, quarantine bad rows, scrub good ones."""
