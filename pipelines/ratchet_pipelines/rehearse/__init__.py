"""Rehearse a release: many times on a virtual clock, or once in real processes."""
