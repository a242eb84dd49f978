"""Faces that smile or do not, drawn on demand: a VAE-GAN whose latents tell, and diffusion of these latents.

  python -m extensions.faces train      a judge, perceptual features, the VAE-GAN and the diffusion model, in turns
  python -m extensions.faces sample     faces that smile, or do not
  python -m extensions.faces evaluate   how good the models are, by the judge
  python -m extensions.faces figures    pictures of all that

COMMAND --help shows examples and all flags; extensions/faces/README.md is the brief of the project. All but the data is
the code of extensions/catdog.
"""

import extensions.blocks.startup  # noqa: F401  before torch, which may not be there

# isort: split
from functools import partial

from extensions.blocks.command import dispatch
from extensions.catdog import evaluate, figures, sample, train
from extensions.faces.data import TRACK
from HW3.plumbing.cli import run_main

VERBS = {verb.__name__.rpartition(".")[2]: partial(verb.main, TRACK) for verb in (train, sample, evaluate, figures)}


def main() -> None:
    dispatch("faces", __doc__ or "", VERBS)


if __name__ == "__main__":
    run_main(main)
