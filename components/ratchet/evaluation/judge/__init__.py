"""A judge of answers: asked which of two is better in both orders, and heard only if it agrees with people."""
