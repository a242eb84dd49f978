"""What the tests of a track's commands share: running one in this process, and what every track promises."""

from __future__ import annotations

import hashlib
import shlex
import signal
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from types import ModuleType, SimpleNamespace

import pytest
import torch
import yaml
from PIL import Image
from torch.optim import Optimizer
from torchvision.datasets import CelebA

from extensions.blocks import command, config
from extensions.blocks.adversarial import Optimizers
from harness import ROOT, assert_same_run, assert_succeeds, child_env, metrics, run_here
from HW3.plumbing.errors import UserError
from HW3.plumbing.run import Run


@dataclass(frozen=True)
class Commands:
    """`python -m extensions.TRACK VERB FLAGS...`, with the settings of the smallest models that still do everything."""

    track: str
    small: Mapping[str, object]

    def __call__(self, verb: str, *flags: object) -> CompletedProcess[str]:
        return run_here(f"extensions.{self.track}.__main__", verb, *flags)

    def changes(self, **more: object) -> list[str]:
        """`small` as flags. Keyword arguments change it, with __ for the dot."""
        values = {**self.small, **{name.replace("__", "."): value for name, value in more.items()}}
        return [flag for name, value in values.items() for flag in ("--set", f"{name}={value}")]

    def settings(self, folder: Path, **more: object) -> SimpleNamespace:
        """The same as the commands see them."""
        changes = [flag for flag in self.changes(**more) if flag != "--set"]
        return command.settings(Namespace(quick=False, config=None, set=changes), folder)

    def assert_refused(self, result: CompletedProcess[str], *parts: object, code: int = 2) -> None:
        """This exit code and one line on stderr, which says all of this."""
        lines = result.stderr.splitlines()
        assert (result.returncode, len(lines)) == (code, 1), result.stderr
        assert lines[0].startswith(f"extensions.{self.track}: error: "), lines[0]
        missing = [str(part) for part in parts if str(part) not in lines[0]]
        assert not missing, f"{missing} not in: {lines[0]}"

    def assert_ends_as(
        self, trained: Path, stages: Sequence[str], out_dir: Path, monkeypatch: pytest.MonkeyPatch, *, stop_at: int
    ) -> None:
        """Ctrl-C in the step with this number, and the command that is then printed: the same as without."""
        log, calls = Run.log, []

        def log_and_stop(run: Run, **values: object) -> None:
            log(run, **values)
            calls.append(run)
            if len(calls) == stop_at:
                signal.raise_signal(signal.SIGINT)

        with monkeypatch.context() as patch:
            patch.setattr(Run, "log", log_and_stop)
            stopped = self("train", *self.changes(), "--out-dir", out_dir)
        assert stopped.returncode == 130
        rest = shlex.split(stopped.stdout.partition("to continue: ")[2])
        assert rest[:4] == ["python", "-m", f"extensions.{self.track}", "train"]
        assert rest[-1] == "--resume"
        assert_succeeds(self("train", *rest[4:]))
        for stage in stages:
            assert_same_run(out_dir / stage, trained / stage, f"{stage}_latest.pt")

    def assert_two_processes_are_one_run(self, stages: Sequence[str], out_dir: Path) -> None:
        """Started by torchrun, each stage runs in both of them and is written once."""
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        flags = [*self.changes(), "--out-dir", str(out_dir), "--device", "cpu"]
        started = [*launcher, "-m", f"extensions.{self.track}", "train", *flags]
        result = subprocess.run(started, cwd=ROOT, env=child_env(), capture_output=True, text=True, timeout=300)
        assert result.returncode == 0, result.stderr
        assert result.stdout.count("2 processes") == len(stages)
        for stage in stages:
            assert [record["epoch"] for record in metrics(out_dir / stage)] == [1, 2]


# -- what is looked at ---------------------------------------------------------------------------------------


def keys(folder: Path, name: str = "default") -> set[str]:
    """All keys of a YAML file beside a track's code, with dots."""

    def below(settings: dict, above: str = "") -> Iterator[str]:
        for key, value in settings.items():
            yield from below(value, f"{above}{key}.") if isinstance(value, dict) else [f"{above}{key}"]

    return set(below(yaml.safe_load((folder / f"{name}.yaml").read_text())))


def read_keys(train: ModuleType, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Will have the settings that commands look at from here on. train: where a track makes what a Run is told."""
    seen: set[str] = set()
    places: dict[int, str] = {}
    alive, load_config = [], config.load_config

    class Section(SimpleNamespace):
        """Settings that notice who reads them. (`vars` reads no setting: it only passes all of them on.)"""

        def __getattribute__(self, name):
            seen.add(f"{places.get(id(self), '')}{name}")
            return super().__getattribute__(name)

    class Flags(Namespace):
        """What a Run is told of a stage, whose name its folder has."""

        def __getattribute__(self, name):
            flags = super().__getattribute__("__dict__")
            seen.add(f"{flags['out_dir'].name}.{name}" if "out_dir" in flags else name)
            return super().__getattribute__(name)

    def noticing(settings: dict, above: str = "") -> Section:
        parts = {k: noticing(v, f"{above}{k}.") if isinstance(v, dict) else v for k, v in settings.items()}
        section = Section(**parts)
        places[id(section)] = above
        alive.append(section)  # so that no other has its id
        return section

    monkeypatch.setattr(command, "load_config", lambda *a, **k: noticing(config.as_settings(load_config(*a, **k))))
    monkeypatch.setattr(train, "Namespace", Flags)
    return seen


def who_moves(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """Will have, for each step of an optimiser among `Optimizers`, whose weights it changed."""
    moved: list[set[str]] = []
    init = Optimizers.__init__

    def remember(self: Optimizers, **optimizers: Optimizer) -> None:
        init(self, **optimizers)
        for optimizer in optimizers.values():
            optimizer.step = stepping(optimizer.step, optimizers)

    def stepping(step, optimizers):
        def step_and_look() -> None:
            weights = {name: o.param_groups[0]["params"] for name, o in optimizers.items()}
            before = {name: [p.detach().clone() for p in params] for name, params in weights.items()}
            step()
            moved.append({n for n in weights if any(not torch.equal(a, b) for a, b in zip(before[n], weights[n]))})

        return step_and_look

    monkeypatch.setattr(Optimizers, "__init__", remember)
    return moved


@contextmanager
def user_error(*parts: object) -> Iterator[None]:
    """What is done within raises a UserError of one line, which says all of this."""
    with pytest.raises(UserError) as error:
        yield
    assert "\n" not in str(error.value)
    missing = [str(part) for part in parts if str(part) not in str(error.value)]
    assert not missing, f"{missing} not in: {error.value}"


# -- catdog and faces, which are one code --------------------------------------------------------------------

# The smallest models that still do everything, the discriminator included: 333 pictures in two batches, and 70 to test,
# as the judge has 64 features.
SMALL_FAMILY = {
    "data.source": "standin", "data.standin_images": 350,
    **{f"{stage}.{name}": value for stage in ("judge", "features", "vae", "diffusion") for name, value in {
        "epochs": 2, "batch_size": 176, "lr": 0.01,
    }.items()},
    **{f"{stage}.precision": "fp32" for stage in ("judge", "features", "vae")},
    **{"judge.width": 8, "features.widths": [4, 8], "perceptual.features": "classifier"},
    **{"vae.latent_dim": 6, "vae.head_dim": 8, "vae.discriminator_widths": [4, 8]},
    **{"vae.kl_weight": [[0.2, 0.0], [0.6, 0.01]], "vae.perceptual_weight": [[0.0, 0.1]]},
    **{"vae.class_weight": [[0.0, 0.1]], "vae.centre_weight": [[0.0, 0.1]], "vae.adversarial_weight": [[0.0, 0.1]]},
    **{"diffusion.batch_size": 352, "diffusion.time_dim": 8, "diffusion.hidden_dim": 16, "diffusion.timesteps": 20},
    **{"sample.ddim_steps": 4, "evaluate.samples": 70},
}  # fmt: skip
catdog = Commands("catdog", {**SMALL_FAMILY, "vae.widths": [4, 8, 8, 8]})
faces = Commands("faces", {**SMALL_FAMILY, "vae.widths": [4, 4, 8, 8, 8]})


def write_celeba(root: Path, monkeypatch, *, train: int, test: int) -> Path:
    """Files as torchvision keeps CelebA in root/celeba; it is told their checksums in place of the real ones.

    Every second face smiles and is light; the others are dark. Every third is Male, none is Bald.
    """
    folder = root / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    names = [f"{k + 1:06d}.jpg" for k in range(train + test)]
    attributes = ["Bald", "Male", "Smiling"]
    for k, name in enumerate(names):
        light = 180 if k % 2 else 40
        Image.new("RGB", (178, 218), (light, light + k % 7, light)).save(folder / "img_align_celeba" / name)
    rows = [f"{name} -1 {1 if k % 3 == 0 else -1:2} {1 if k % 2 else -1:2}" for k, name in enumerate(names)]
    texts = {
        "list_attr_celeba.txt": [str(len(names)), " ".join(attributes) + " ", *rows],
        "identity_CelebA.txt": [f"{name} {k + 1}" for k, name in enumerate(names)],
        "list_bbox_celeba.txt": [str(len(names)), "image_id x_1 y_1 width height"]
        + [f"{name}    95  71 226 313" for name in names],
        "list_landmarks_align_celeba.txt": [str(len(names)), " ".join("abcdefghij")]
        + [f"{name} " + " ".join(["69"] * 10) for name in names],
        "list_eval_partition.txt": [f"{name} {0 if k < train else 2}" for k, name in enumerate(names)],
    }
    sums = {}
    for name, lines in texts.items():
        content = ("\n".join(lines) + "\n").encode()
        (folder / name).write_bytes(content)
        sums[name] = hashlib.md5(content).hexdigest()
    file_list = [(file, sums.get(name, md5), name) for file, md5, name in CelebA.file_list]
    monkeypatch.setattr(CelebA, "file_list", file_list)
    return folder
