"""Faces that smile or do not: the code of `catdog` on CelebA; `python -m extensions.faces` is the command."""
