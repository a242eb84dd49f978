"""One command line for every script: the shared flags, the presets, and the error style.

An error that a user can mend (errors.py) ends a script with one line and no traceback.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from HW3.data import DATASETS
from HW3.plumbing.errors import UsageError, UserError
from HW3.schedules import PREDICTIONS, SCHEDULES


def run_main(main: Callable[[], None]) -> NoReturn:
    """Run a script's `main`, turning what a user can mend into one line on stderr and the right exit code."""
    try:
        main()
    except UserError as error:
        # Under torchrun every process meets the same error; one of them says it.
        if os.environ.get("RANK", "0") == "0":
            print(f"{Path(sys.argv[0]).name}: error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except NotImplementedError as error:
        if (line := what_to_write(error)) is None:
            raise
        print(f"{Path(sys.argv[0]).name}: error: {line}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print(f"\n{Path(sys.argv[0]).name}: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # `python sample.py --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    sys.exit(0)


def what_to_write(error: NotImplementedError) -> str | None:
    """Which TODO of the assignment was reached, in one line; None for somebody else's error."""
    if not str(error).startswith("TODO("):
        return None
    id, _, what = str(error).removeprefix("TODO(").partition("): ")
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{id} is still to be written ({Path(where.filename).name}, line {where.lineno}): {what}"


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` whose long flags may be spelt with `-` or `_`, and whose errors are one line."""

    def __init__(self, doc: str) -> None:
        super().__init__(
            description=doc,
            formatter_class=_HelpFormatter,
            allow_abbrev=False,
        )

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        argv = sys.argv[1:] if args is None else list(args)
        return super().parse_known_args([_with_dashes(arg) for arg in argv], namespace)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (--help lists the flags)")


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keep the docstring's lines, and end each flag's help with its default."""


def _with_dashes(arg: str) -> str:
    """`--data_dir=a_b` -> `--data-dir=a_b`."""
    return re.sub(r"^--[^=]+", lambda flag: flag[0].replace("_", "-"), arg)


# -- values ------------------------------------------------------------------------------------


def at_least(low: int) -> Callable[[str], int]:
    """An argparse type: an integer that is `low` or more."""

    def integer(text: str) -> int:
        value = int(text)
        if value < low:
            raise argparse.ArgumentTypeError(f"must be {low} or more, not {text}")
        return value

    return integer


def even(text: str) -> int:
    """An argparse type: an even integer, 2 or more."""
    value = at_least(2)(text)
    if value % 2:
        raise argparse.ArgumentTypeError(f"must be even, not {text}")
    return value


def between(low: float, high: float) -> Callable[[str], float]:
    """An argparse type: a number in [low, high]."""

    def number(text: str) -> float:
        value = float(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"must be between {low:g} and {high:g}, not {text}")
        return value

    return number


# -- the flags every training script has --------------------------------------------------------


def training_parser(
    doc: str, *, out_dir: str, epochs: int, batch_size: int, lr: float, ema: float, sample_every: int
) -> Parser:
    """A parser with the flags that all five training scripts share, with this script's defaults."""
    parser = Parser(doc)
    data = parser.add_argument_group("data")
    data.add_argument("--dataset", choices=DATASETS, default="mnist", help="what to train on")
    add_data_dir(data)
    data.add_argument("--limit", type=at_least(2), help="use only the first N training images")

    train = parser.add_argument_group("training")
    train.add_argument(
        "--preset",
        choices=("quick", "paper"),
        help="other defaults, that finish in minutes on a laptop; paper: without what was found after the first papers",
    )
    train.add_argument("--quick", dest="preset", action="store_const", const="quick", help="the same as --preset quick")
    train.add_argument("--epochs", type=at_least(1), default=epochs, help="passes over the training images")
    train.add_argument("--batch-size", type=at_least(1), default=batch_size, help="images per step, over all processes")
    train.add_argument("--lr", type=between(0, 10), default=lr, help="peak learning rate (short warm-up, cosine decay)")
    train.add_argument(
        "--ema", type=between(0, 0.99999), default=ema, help="decay of the averaged weights that are sampled; 0: off"
    )
    train.add_argument("--seed", type=at_least(0), default=42, help="seed of every random draw")
    add_device(train)
    train.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16"),
        default="auto",
        help="auto: bf16 autocast where the hardware has it and this model gains from it (bench/README.md)",
    )

    output = parser.add_argument_group("output")
    output.add_argument("--out-dir", "--output-dir", default=out_dir, type=Path, help="folder for everything written")
    start = output.add_mutually_exclusive_group()
    start.add_argument("--resume", action="store_true", help="continue from the latest checkpoint in --out-dir")
    start.add_argument("--overwrite", action="store_true", help="start anew although --out-dir holds a trained model")
    output.add_argument(
        "--sample-every", type=at_least(0), default=sample_every, help="pictures every N epochs; 0: after the last only"
    )
    return parser


def add_data_dir(parser: argparse._ActionsContainer) -> None:
    """`--data-dir`, with `HW3_DATA_DIR` as its fallback."""
    parser.add_argument(
        "--data-dir",
        default=os.environ.get("HW3_DATA_DIR", "data"),
        type=Path,
        help="folder that holds, or will hold, MNIST/raw (environment: HW3_DATA_DIR)",
    )


def add_device(parser: argparse._ActionsContainer) -> None:
    """`--device`, the same everywhere."""
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="where to compute")


def add_diffusion(parser: Parser, *, ddim_steps: int) -> None:
    """The flags of the three scripts that train a diffusion model."""
    group = parser.add_argument_group("diffusion")
    group.add_argument("--timesteps", type=at_least(1), default=1000, help="T, the length of the forward process")
    group.add_argument("--prediction", choices=PREDICTIONS, default="eps", help="what the network predicts")
    group.add_argument(
        "--schedule", choices=SCHEDULES, help="how beta grows with t; by default what suits the prediction"
    )
    group.add_argument(
        "--ddim-steps", type=at_least(1), default=ddim_steps, help="network calls per DDIM sample, 1 to --timesteps"
    )
    group.add_argument("--ddim-eta", type=between(0, 1), default=0.0, help="DDIM noise: 0 none, 1 as much as DDPM")
    group.add_argument(
        "--autoguidance",
        type=between(0, 100),
        default=1.0,
        help="how far to draw away from what the network drew early in training; 1: none",
    )
    group.add_argument(
        "--x0-scale", type=between(0.5, 2), default=1.0, help="when drawing, stretch the estimate of x_0 in every step"
    )


def add_latent(parser: Parser) -> argparse._ArgumentGroup:
    """The flags of the two scripts that train in latent space."""
    group = parser.add_argument_group("latents")
    group.add_argument("--vae-ckpt", default="result/vae/convae_latest.pt", type=Path, help="from train_vae.py")
    group.add_argument("--latent-dim", type=at_least(1), help="size of z, if you want the checkpoint's checked")
    group.add_argument("--time-dim", type=even, default=256, help="size of the sinusoidal time embedding")
    group.add_argument("--hidden-dim", type=at_least(1), default=512, help="width of the MLP")
    group.add_argument("--blocks", type=at_least(1), default=3, help="residual blocks of the MLP")
    return group


def check_agrees(flag: str, given: int | None, found: int, path: Path) -> None:
    """Raise UsageError when a flag was given and contradicts a checkpoint."""
    if given is not None and given != found:
        raise UsageError(f"{flag} {given} contradicts {path}, which has {found}: leave the flag out or train anew")


def parse(parser: Parser, quick: dict[str, Any], paper: dict[str, Any] | None = None) -> argparse.Namespace:
    """Parse the command line. `--preset` replaces the defaults; a flag that is given still wins.

    quick: the defaults of `--preset quick`. A value may be a dict by dataset, with "*" for all the others.
    paper: what `--preset paper` has otherwise; None for a script that was written before there was one.
    """
    args = parser.parse_args()
    if args.preset is not None:
        if args.preset == "paper" and paper is None:
            parser.error("this script has no --preset paper")
        values = quick | (paper or {} if args.preset == "paper" else {})
        parser.set_defaults(**{k: v.get(args.dataset, v["*"]) if isinstance(v, dict) else v for k, v in values.items()})
        args = parser.parse_args()
    if "ddim_steps" in args and args.ddim_steps > args.timesteps:
        parser.error(f"--ddim-steps {args.ddim_steps} is outside 1 to --timesteps {args.timesteps}")
    if "schedule" in args:
        _settle_schedule(args)
    return args


def _settle_schedule(args: argparse.Namespace) -> None:
    """The cosine schedule ends in nothing but noise, from which eps alone cannot tell x_0.

    There the first step back divides by sqrt(alpha_bar), about 1/200, and multiplies every error of the network. Images
    survive it because their samplers clip x_0; latents have no range to clip to. A network that predicts v has no such
    division.
    """
    if args.schedule is None:
        args.schedule = "linear" if args.prediction == "eps" else "cosine"
    if args.schedule == "cosine" and args.prediction == "eps" and "vae_ckpt" in args:
        raise UsageError(
            "--schedule cosine with --prediction eps: in latent space, where nothing is clipped, the first step back "
            "multiplies the network's errors by hundreds; use --prediction v, or --schedule linear"
        )
