"""The library behind the five training scripts: data, models, diffusion, and the plumbing around them.

The scripts import from here; nothing in here imports the scripts, the graders or the extensions.
"""
