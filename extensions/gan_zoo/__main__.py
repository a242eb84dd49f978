"""Three ways to draw the same pictures, measured alike: a VAE, a GAN and a diffusion model.

  python -m extensions.gan_zoo train      the three models, one after the other
  python -m extensions.gan_zoo sample     a grid of one model's pictures, or single ones
  python -m extensions.gan_zoo evaluate   the VAE's loss, and all three side by side
  python -m extensions.gan_zoo sweep      VAEs with several weights of the KL term
  python -m extensions.gan_zoo figures    pictures of all that

COMMAND --help shows examples and all flags; extensions/gan_zoo/README.md is the brief of the project.
"""

import extensions.blocks.startup  # noqa: F401  before torch, which may not be there

# isort: split
from extensions.blocks.command import dispatch
from extensions.gan_zoo import evaluate, figures, sample, sweep, train
from HW3.plumbing.cli import run_main

VERBS = {
    "train": train.main,
    "sample": sample.main,
    "evaluate": evaluate.main,
    "sweep": sweep.main,
    "figures": figures.main,
}


def main() -> None:
    dispatch("gan_zoo", __doc__ or "", VERBS)


if __name__ == "__main__":
    run_main(main)
