"""Lessons on GANs with a tiny pair in the plane: what it does, and what to try with it."""
