"""From judged answers to training rows: signals become pairs and weights, and whole groups go to train or eval."""
