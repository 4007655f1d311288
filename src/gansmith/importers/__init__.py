"""Generators in the file formats of other libraries, read without those libraries' loaders and without running code.

Each reader gives a module from latents and ids to images (N, C, H, W) in [-1, 1], and what the file says of itself if
Gansmith wrote it.
"""
