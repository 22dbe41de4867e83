"""Build training rows from votes: pairs, labels and weights, split into train and eval by whole groups."""
