"""The pictures of README and the notes: all made by one command, small, shown where they teach, and never out of date
with the code, as each is drawn here from tiny models."""

from __future__ import annotations

import importlib.util
import io
import random
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from harness import ROOT, parsed
from HW3.plumbing.checkpoints import load_checkpoint
from HW3.plumbing.errors import UserError
from pages import FILES, NOTES

spec = importlib.util.spec_from_file_location("figures", ROOT / "docs" / "figures.py")
figures = importlib.util.module_from_spec(spec)
sys.modules["figures"] = figures  # its dataclass looks there for what its annotations mean
spec.loader.exec_module(figures)

BY_HAND = "app.png"  # a browser's screenshot
FILES_MADE = [picture.file for picture in figures.FIGURES.values()]
PAGES = {
    ROOT / "README.md": ROOT,
    FILES / "handout" / "files" / "README.md": ROOT,  # stands at the top of the handout
    **{page: page.parent for page in NOTES},
}
SHOWN = re.compile(r'!\[[^\]]*\]\(([^)\s]+)\)|<img [^>]*src="([^"]+)"')


def shown_on(page: Path) -> set[str]:
    """The files in imgs that a page shows."""
    links = ["".join(found) for found in SHOWN.findall(page.read_text(encoding="utf-8"))]
    return {(PAGES[page] / link).resolve().relative_to(figures.IMGS).as_posix() for link in links}


def kind_of(run: str) -> str:
    script = figures.RUNS[run].split()[0]
    return script.removeprefix("train_").removesuffix(".py")


@pytest.fixture(scope="module")
def runs(tiny, tmp_path_factory):
    """Tiny models in the places of the runs."""
    folder = tmp_path_factory.mktemp("runs")
    for run in figures.RUNS:
        shutil.copytree(tiny.out_dir(kind_of(run)), folder / run)
    return figures.Runs(folder, folder, "digits")


# -- which there are -----------------------------------------------------------------------------------


def test_every_picture_is_shown_and_every_shown_one_is_made():
    shown = set().union(*map(shown_on, PAGES))
    assert shown == {*FILES_MADE, BY_HAND}


def test_every_picture_lies_there_and_there_is_no_other():
    found = {path.relative_to(figures.IMGS).as_posix() for path in figures.IMGS.rglob("*") if path.is_file()}
    found = {name for name in found if not name.startswith("extensions/")}  # those the tracks' own commands make
    assert found == {*FILES_MADE, BY_HAND}
    assert len(figures.FIGURES) == len(FILES_MADE)  # --only takes the name without folder and ending


@pytest.mark.parametrize("page", [page for page in NOTES if page.name != "README.md"], ids=lambda page: page.stem)
def test_a_page_shows_the_pictures_that_bear_its_number(page):
    number = page.stem.partition("-")[0]
    own = {file for file in FILES_MADE if file.startswith(f"notes/{number}-")}
    assert f"notes/{page.stem}.png" in own
    assert own <= shown_on(page)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_on_pages_name_pictures_that_there_are(page):
    for names in re.findall(r"figures\.py --only ([\w \-]+)", page.read_text(encoding="utf-8")):
        assert set(names.split()) - {"NAME"} <= figures.FIGURES.keys()


@pytest.mark.parametrize("name", figures.FIGURES)
def test_a_picture_is_small_and_can_be_read(name):
    path = figures.IMGS / figures.FIGURES[name].file
    with Image.open(path) as picture:
        assert picture.format == path.suffix[1:].upper()
        assert 250 < picture.width < 1000
        assert getattr(picture, "n_frames", 1) > 10 or path.suffix == ".png"
    assert path.stat().st_size < (80_000 if path.suffix == ".png" else 600_000)


def test_all_pictures_together_are_small():
    assert sum((figures.IMGS / file).stat().st_size for file in FILES_MADE) < 2_500_000


# -- how they are made ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", figures.FIGURES)
def test_a_picture_is_drawn_from_tiny_models_the_same_each_time(name, runs):
    """Whatever the global random generators say, which loading a model moves on."""
    file, drawn = figures.FIGURES[name].file, []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        drawn.append(figures.content(figures.FIGURES[name].draws(runs)))
    assert drawn[0] == drawn[1]
    with Image.open(io.BytesIO(drawn[0])) as picture:
        picture.load()
        assert f".{picture.format.lower()}" == Path(file).suffix
        low, high = picture.convert("L").getextrema()
        assert high - low > 100  # something is on it


@pytest.mark.parametrize("run", figures.RUNS)
def test_the_commands_of_the_runs_are_understood(run, monkeypatch):
    script, *flags = figures.RUNS[run].format(runs="runs").split()
    parsed(monkeypatch, script.removeprefix("train_").removesuffix(".py"), *flags)


def test_every_run_is_of_some_picture():
    used = {run for picture in figures.FIGURES.values() for run in picture.runs}
    needed = {run for run in figures.RUNS for command in figures.RUNS.values() if f"{{runs}}/{run}/" in command}
    assert used | needed == figures.RUNS.keys()


def test_a_picture_uses_the_runs_that_it_names_and_no_other(runs, monkeypatch):
    asked = []
    for method in ("checkpoint", "records"):
        original = getattr(figures.Runs, method)
        monkeypatch.setattr(
            figures.Runs, method, lambda self, run, original=original: (asked.append(run), original(self, run))[1]
        )
    for name in ("1-kl-curve", "1-losses", "3-x0-hat", "6-latents"):
        asked.clear()
        figures.FIGURES[name].draws(runs)
        assert set(asked) == set(figures.FIGURES[name].runs)


def test_a_run_is_trained_with_what_it_needs_and_once(runs, monkeypatch, tmp_path):
    commands = []

    def trained(command, **options):
        run = Path(command[command.index("--out-dir") + 1]).name
        shutil.copytree(runs.folder / run, tmp_path / run, dirs_exist_ok=True)
        commands.append(command[1:])
        return figures.subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(figures.subprocess, "run", trained)
    mine = figures.Runs(tmp_path, tmp_path, "digits")
    for _ in range(2):
        mine.train("tiny_sd")
    assert [command[0] for command in commands] == ["train_vae.py", "train_clip.py", "train_tiny_sd.py"]
    assert f"{tmp_path}/vae/convae_latest.pt" in commands[-1]
    assert all("--resume" not in command for command in commands)


def test_a_run_that_was_interrupted_goes_on(runs, monkeypatch, tmp_path):
    shutil.copytree(runs.folder / "vae", tmp_path / "vae")
    path = next((tmp_path / "vae").glob("*_latest.pt"))
    checkpoint = load_checkpoint(path)
    checkpoint["args"]["epochs"] += 1
    torch.save(checkpoint, path)
    commands = []
    monkeypatch.setattr(
        figures.subprocess,
        "run",
        lambda command, **options: (commands.append(command), figures.subprocess.CompletedProcess(command, 0))[1],
    )
    figures.Runs(tmp_path, tmp_path, "digits").train("vae")
    assert [command[-1] for command in commands] == ["--resume"]


def test_a_run_that_fails_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(
        figures.subprocess, "run", lambda command, **options: figures.subprocess.CompletedProcess(command, 1)
    )
    with pytest.raises(UserError, match="the run vae was not trained"):
        figures.Runs(tmp_path, tmp_path, "digits").train("vae")


def test_only_the_pictures_that_are_asked_for_are_written(runs, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(figures, "IMGS", tmp_path)
    monkeypatch.setattr(figures, "Runs", lambda folder, data_dir: runs)
    monkeypatch.setattr(sys, "argv", ["figures.py", "--only", "2-forward-process", "denoising"])
    figures.main()
    written = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert written == {"notes/2-forward-process.png", "denoising.gif"}
    assert [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()] == [
        "imgs/notes/2-forward-process.png",
        "imgs/denoising.gif",
    ]
