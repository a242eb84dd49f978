"""Expressions as sequences of grammar productions: a VAE, latent diffusion, and a prior told what kind to draw.

  python -m extensions.structured build      the CSV's expressions as an HDF5 data set
  python -m extensions.structured train      four models, one after the other
  python -m extensions.structured sample     expressions of a type and a part
  python -m extensions.structured evaluate   how good the models are, on rows they have not seen
  python -m extensions.structured figures    pictures of all that

COMMAND --help shows examples and all flags; extensions/structured/README.md is the brief of the project.
"""

import extensions.blocks.startup  # noqa: F401  before torch, which may not be there

# isort: split
from extensions.blocks.command import dispatch
from extensions.structured import build, evaluate, figures, sample, train
from HW3.plumbing.cli import run_main

VERBS = {
    "build": build.main,
    "train": train.main,
    "sample": sample.main,
    "evaluate": evaluate.main,
    "figures": figures.main,
}


def main() -> None:
    dispatch("structured", __doc__ or "", VERBS)


if __name__ == "__main__":
    run_main(main)
