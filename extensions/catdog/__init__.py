"""Cats and dogs from a labelled VAE's latents; `python -m extensions.catdog` is the command."""
