"""The command line that all tracks share: `python -m extensions.TRACK VERB`, its flags, what a stage of a run sees."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace

from extensions.blocks.config import load_config, nearest
from HW3.plumbing.cli import Parser, add_data_dir, add_device, at_least
from HW3.plumbing.errors import UsageError


def dispatch(track: str, doc: str, verbs: Mapping[str, Callable[[], None]]) -> None:
    """Run the verb that the command line names."""
    program, name = f"extensions.{track}", sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print(doc.strip())
        return
    rest = sys.argv[2:]
    sys.argv = ["-m", program, name, *rest]  # as a stopped run says how to continue
    try:
        if name not in verbs:
            raise UsageError(f"there is no command {name}: {nearest(name, list(verbs))}")
        verbs[name]()
    finally:
        sys.argv = [program, name, *rest]  # as an error says who speaks


def arguments() -> list[str]:
    """What is behind the verb."""
    return sys.argv[3:]


def track_parser(doc: str, track: str) -> Parser:
    """A parser with the flags that every verb of every track has; it parses `arguments()`."""
    parser = Parser(doc)
    parser.prog = " ".join(["python", *sys.argv[:3]])
    parser.add_argument("--quick", action="store_true", help="laptop preset: quick.yaml over default.yaml")
    parser.add_argument("--config", type=Path, help="a YAML file with settings to change")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change one setting; may be repeated"
    )
    add_data_dir(parser)
    parser.add_argument("--out-dir", type=Path, default=Path("result") / track, help="folder of the run")
    parser.add_argument("--seed", type=at_least(0), default=42, help="seed of every random draw")
    add_device(parser)
    return parser


def settings(args: Namespace, folder: Path) -> SimpleNamespace:
    """The configuration that these flags describe, from the YAML files in the track's folder."""
    files = [*([folder / "quick.yaml"] if args.quick else []), *([args.config] if args.config else [])]
    return load_config(folder / "default.yaml", *files, changes=args.set)


def stage_args(args: Namespace, section: SimpleNamespace, out_dir: Path) -> Namespace:
    """What HW3.plumbing.run.Run is told of one stage of `train`: the flags, and the settings of its section.

    Each stage has a folder of its own. A stage that --resume finds not begun yet begins. `precision` and `sample_every`
    are fp32 and 0, pictures after the last epoch only, where the section has no such settings.
    """
    shared = {name: getattr(args, name) for name in ("seed", "device", "data_dir", "overwrite")}
    resume = args.resume and any(out_dir.glob("*_latest.pt"))
    fixed = {"precision": "fp32", "sample_every": 0}
    return Namespace(**shared, out_dir=out_dir, resume=resume, **{**fixed, **vars(section)})
