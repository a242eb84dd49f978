"""Cats and dogs, drawn on demand: a VAE whose latents tell the class, and diffusion of these latents.

  python -m extensions.catdog train      a judge, perceptual features, the VAE, the diffusion model, one after the other
  python -m extensions.catdog sample     pictures of a class
  python -m extensions.catdog evaluate   how good the models are, by the judge
  python -m extensions.catdog figures    pictures of all that

COMMAND --help shows examples and all flags; extensions/catdog/README.md is the brief of the project.
"""

import extensions.blocks.startup  # noqa: F401  before torch, which may not be there

# isort: split
from functools import partial

from extensions.blocks.command import dispatch
from extensions.catdog import evaluate, figures, sample, train
from extensions.catdog.data import TRACK
from HW3.plumbing.cli import run_main

VERBS = {verb.__name__.rpartition(".")[2]: partial(verb.main, TRACK) for verb in (train, sample, evaluate, figures)}


def main() -> None:
    dispatch("catdog", __doc__ or "", VERBS)


if __name__ == "__main__":
    run_main(main)
