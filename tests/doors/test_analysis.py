"""The written part as students work in it: run from a clean folder, with runs, without them, and before the TODOs."""

from __future__ import annotations

import re
import shlex
import shutil

import nbformat
import pytest
from nbclient import NotebookClient

from classroom import write
from grading.hidden.doors.gradebook.written import pictures
from grading.hidden.handout.release import build
from harness import ROOT, assert_succeeds, child_env, run_here

FIGURES = ["kl-weight-figure", "kl-weight-numbers", "ddpm-ddim-figure", "guidance-figure", "failure-figure"]
COMMAND = re.compile(r"python (train_\w+\.py) (.+)")
SMALL = ["--limit", "40", "--epochs", "1", "--batch-size", "16"]
SMALLER = {
    "train_vae.py": ["--latent-dim", "8"],
    "train_clip.py": ["--embed-dim", "16"],
    "train_diffusion.py": ["--base-channels", "8", "--patch-size", "4", "--timesteps", "60"],
    "train_tiny_sd.py": ["--time-dim", "16", "--hidden-dim", "32"],
}


def executed(folder):
    """What the notebook's code cells print in a folder, by their ids. Fails on a traceback."""
    notebook = nbformat.read(folder / "analysis.ipynb", as_version=4)
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}})
    client.execute(env=child_env())
    return {
        cell.id: "".join(output.get("text", "") for output in cell.outputs)
        for cell in notebook.cells
        if cell.cell_type == "code"
    }


@pytest.fixture(scope="module")
def trees():
    """The handout, and the handout with every TODO completed."""
    return build(ROOT)


@pytest.fixture(scope="module")
def without_runs(trees, tmp_path_factory):
    folder = write(tmp_path_factory.mktemp("empty") / "hw3", trees[1])
    said = executed(folder)
    assert not (folder / "figures").exists()
    return said


@pytest.fixture(scope="module")
def with_runs(trees, tmp_path_factory):
    """A folder in which every command of the notebook's text was given, made small."""
    folder = write(tmp_path_factory.mktemp("runs") / "hw3", trees[1])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for script, flags in commands_of(folder / "analysis.ipynb"):
            assert_succeeds(run_here(script, *shlex.split(flags), *SMALL, *SMALLER[script]))
    return folder


def commands_of(path):
    """The training commands in the text, (script, flags)."""
    cells = nbformat.read(path, as_version=4).cells
    return COMMAND.findall("\n".join(cell.source for cell in cells if cell.cell_type == "markdown"))


def test_what_is_not_there_is_a_line_with_the_command(without_runs, trees, tmp_path):
    assert without_runs["setup"] == without_runs["place"] == ""
    (tmp_path / "analysis.ipynb").write_bytes(trees[1]["analysis.ipynb"])
    known = commands_of(tmp_path / "analysis.ipynb")
    for id in FIGURES:
        [line] = without_runs[id].splitlines()
        assert line.startswith("No figure yet: there is no run in result/digits/"), line
        [command] = COMMAND.findall(line)
        assert command in known


@pytest.mark.slow
def test_every_figure_is_drawn_from_the_runs_of_the_text(with_runs):
    said = executed(with_runs)
    assert "No figure yet" not in "".join(said.values())
    assert {f"figures/{path.name}" for path in (with_runs / "figures").iterdir()} == set(pictures())
    assert said["kl-weight-numbers"].count("nats per image") == 4
    assert re.search("fr[eé]chet", said["kl-weight-numbers"], re.IGNORECASE)  # evaluate.py has measured them
    assert said["guidance-figure"].count("recognised") == 6


def test_before_the_todos_the_functions_are_named(with_runs, trees, tmp_path):
    folder = write(tmp_path / "hw3", trees[0])
    shutil.copytree(with_runs / "result", folder / "result")
    said = executed(folder)
    assert said["kl-weight-figure"] == ""  # it needs no function of theirs: the VAE decodes means
    for id, todo in zip(FIGURES[1:], ("kl", "predict-x0", "conditioning", "predict-x0"), strict=True):
        [line] = said[id].splitlines()
        assert line.startswith(f"No figure yet, write this function first: TODO({todo}): "), line


def test_elsewhere_it_says_where_to_open_it(trees, tmp_path):
    (tmp_path / "analysis.ipynb").write_bytes(trees[0]["analysis.ipynb"])
    notebook = nbformat.read(tmp_path / "analysis.ipynb", as_version=4)
    [place] = [cell for cell in notebook.cells if cell.id == "place"]
    notebook.cells = [place]
    NotebookClient(notebook, allow_errors=True, resources={"metadata": {"path": str(tmp_path)}}).execute()
    [problem] = [output for output in place.outputs if output.output_type == "error"]
    assert "open this notebook in the folder of the assignment" in problem.evalue
