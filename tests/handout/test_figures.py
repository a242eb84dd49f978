"""The pictures of the notes: one for each page, small, and made by commands that the scripts understand."""

from __future__ import annotations

import importlib.util

import pytest
from PIL import Image

from harness import ROOT, parsed
from pages import NOTES

spec = importlib.util.spec_from_file_location("figures", ROOT / "docs" / "figures.py")
figures = importlib.util.module_from_spec(spec)
spec.loader.exec_module(figures)

STAGES = [page for page in NOTES if page.name != "README.md"]


def test_each_page_has_its_picture_and_there_is_no_other():
    names = [page.stem for page in STAGES]
    assert list(figures.FIGURES) == names
    assert sorted(path.name for path in figures.IMGS.iterdir()) == [f"{name}.png" for name in names]


@pytest.mark.parametrize("page", STAGES, ids=lambda page: page.stem)
def test_a_page_shows_its_picture(page):
    assert f"(../../imgs/notes/{page.stem}.png)" in page.read_text(encoding="utf-8")
    path = figures.IMGS / f"{page.stem}.png"
    assert path.stat().st_size < 60_000
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert 300 < picture.width < 1000


@pytest.mark.parametrize("run", figures.RUNS)
def test_the_commands_of_the_runs_are_understood(run, monkeypatch):
    script, *flags = figures.RUNS[run].format(runs="runs").split()
    parsed(monkeypatch, script.removeprefix("train_").removesuffix(".py"), *flags)


def test_every_run_is_of_some_picture():
    used = {run for runs, _ in figures.FIGURES.values() for run in runs}
    needed = {run for run in figures.RUNS for command in figures.RUNS.values() if f"{{runs}}/{run}/" in command}
    assert used | needed == figures.RUNS.keys()
