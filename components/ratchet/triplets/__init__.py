"""Triplets: a prompt, the answer to it, and what somebody thought of that answer."""
