"""HW3.ipynb: made from one source, run from a clean folder, before the TODOs are written and after."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from grading.errors import GradingError
from grading.hidden.handout.notebook import notebook
from grading.hidden.handout.release import NOTEBOOK, build, handout_notebook, release, write_tree
from grading.rubric import load_rubric
from harness import KINDS, LATEST, ROOT, child_env
from HW3.plumbing.notebook import LINES, WIDTH, Stop, _Output, _start, newest_pictures, set_up, shorten, what_is_missing

# One tiny epoch of everything, and checks of two functions.
TINY = {
    'DATASET = "mnist"': 'DATASET = "digits"',
    'MORE = ""': 'MORE = "--epochs 1 --limit 40 --batch-size 20"',
    'lab.train("diffusion")': 'lab.train("diffusion", "--timesteps", 20, "--ddim-steps", 4)',
    '"--num", 16)': '"--num", 4, "--steps", 4)',
    '"result/*/*_latest.pt")': '"result/*/*_latest.pt", "--num", 65)',
    "lab.check()": 'lab.check("guidance or kl")',
}


def executed(text: str, folder: Path, changes: dict[str, str]) -> dict[str, str]:
    """Run all cells of a notebook, with changes that each must fit: start of a cell -> what it shows."""
    whole = nbformat.reads(text, as_version=4)
    nbformat.validate(whole)
    cells = [cell for cell in whole.cells if cell.cell_type == "code"]
    for wanted, tiny in changes.items():
        assert any(wanted in cell.source for cell in cells), wanted
        for cell in cells:
            cell.source = cell.source.replace(wanted, tiny)
    client = NotebookClient(whole, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    client.execute(env=child_env())
    return {re.split(r"[,)\n]", cell.source)[0]: "\n".join(map(shown, cell.outputs)) for cell in cells}


def shown(output: nbformat.NotebookNode) -> str:
    """An output as text; a picture as `<picture>`."""
    if output.output_type == "stream":
        return output.text
    return "<picture>" if {"image/png", "image/gif"} & output.data.keys() else output.data["text/plain"]


@pytest.fixture(scope="module")
def handout(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("release") / "hw3"
    release(out, zip=True)
    return out


@pytest.mark.slow
def test_it_runs_from_a_clean_folder_with_everything_written(tmp_path):
    write_tree(tmp_path, build(ROOT)[1])
    # What `pack` does besides the zip is run in its own tests, and takes as long as all the rest.
    changes = {**TINY, "lab.pack(NAME)": 'lab.run("-m", "grading", "pack", "--name", "Ada", "--no-check")'}
    cells = executed((tmp_path / "HW3.ipynb").read_text(), tmp_path, changes)
    assert re.search(r"no GPU|a GPU", cells["import os"])
    assert re.search(r"total +15 / 15 ", cells['lab.check("guidance or kl"'])
    for kind in KINDS:
        text = cells[f'lab.train("{kind}"']
        assert "error" not in text, text
        assert "epoch 1/1  loss" in text
        assert text.count("<picture>") >= 2, text  # the curves, and a grid
        assert (tmp_path / "result" / kind / LATEST[kind]).is_file()
    for draw in ('lab.draw("result/tiny_sd/tiny_sd_latest.pt"', 'lab.draw("result/diffusion/diffusion_latest.pt"'):
        assert "<picture>" in cells[draw], cells[draw]
    table = cells['lab.run("evaluate.py"']
    assert [kind for kind in KINDS if table.count(LATEST[kind]) < 2] == [], table  # in the command, and as a row
    assert (tmp_path / "hw3-ada.zip").is_file()


@pytest.mark.slow
def test_before_the_todos_each_section_says_one_line(handout, tmp_path):
    """From the zip in another folder, as on Colab. "Run all" comes to its end."""
    shutil.copy(handout / "HW3.ipynb", tmp_path)
    shutil.copy(handout.with_name("hw3.zip"), tmp_path / "uploaded.zip")
    cells = executed((tmp_path / "HW3.ipynb").read_text(), tmp_path, TINY)
    assert not [text for text in cells.values() if "Traceback" in text]
    assert "HW3/vae.py: TODO(kl): " in cells['lab.check("guidance or kl"']
    assert re.search(r"total +0 / 15 ", cells['lab.check("guidance or kl"'])
    no_vae = "error: no checkpoint at result/vae/convae_latest.pt: make it with train_vae.py"
    for start, line in {
        'lab.train("vae"': "train_vae.py: error: reparameterize is still to be written (vae.py, line",
        'lab.train("diffusion"': "train_diffusion.py: error: q-sample is still to be written (diffusion.py, line",
        'lab.train("latent_diffusion"': no_vae,
        'lab.train("tiny_sd"': no_vae,
        'lab.draw("result/tiny_sd/tiny_sd_latest.pt"': "sample.py: error: no checkpoint at",
        "lab.pack(NAME": "pack: write your name into NAME in the first cell",
    }.items():
        assert len(re.findall(r"error: |pack: ", cells[start])) == 1, cells[start]
        assert line in cells[start]
    assert cells['lab.train("clip"'].count("<picture>") == 2  # which has no TODO


def test_alone_it_says_in_one_line_what_to_do(tmp_path):
    text = build(ROOT)[0]["HW3.ipynb"].decode()
    with pytest.raises(CellExecutionError) as error:
        executed(text, tmp_path, {})
    shown = error.value.traceback.strip().splitlines()[-1]
    assert shown.startswith(f"the assignment is not in {tmp_path}: open this notebook in its folder")


def test_it_clones_what_the_release_names(handout, tmp_path):
    release(tmp_path / "served", push_safe=True, repository=(tmp_path / "served").as_uri())
    text = (tmp_path / "served" / "HW3.ipynb").read_text()
    cells = nbformat.reads(text, as_version=4).cells
    settings, set_up = (cell.source for cell in cells if cell.cell_type == "code" and "FOLDER" in cell.source)
    (tmp_path / "alone").mkdir()
    fetch = settings + "\n" + set_up.partition("from HW3.plumbing")[0] + "\nprint(Path('train_vae.py').is_file())"
    for _ in range(2):  # the second time it is there
        done = subprocess.run([sys.executable, "-c", fetch], cwd=tmp_path / "alone", capture_output=True, text=True)
        assert (done.stdout, done.stderr) == ("True\n", "")


def test_an_address_that_would_end_the_string_is_refused():
    source = (ROOT / NOTEBOOK).read_text()
    assert 'REPOSITORY = \\"https://example.org/hw3.git\\"' in handout_notebook(source, "https://example.org/hw3.git")
    with pytest.raises(GradingError, match="--repository"):
        handout_notebook(source, 'x"; import os #')
    with pytest.raises(GradingError, match="which --repository fills in"):
        handout_notebook(source.replace('REPOSITORY = ""', ""), "")


def test_its_links_lead_somewhere_in_the_handout(handout):
    cells = json.loads((handout / "HW3.ipynb").read_text())["cells"]
    text = "".join(line for cell in cells if cell["cell_type"] == "markdown" for line in cell["source"])
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert len(links) >= 8
    assert [link for link in links if not (handout / link).is_file()] == []
    assert [file for file in load_rubric().submit if f"`{file}`" not in text] == []


# -- the source -----------------------------------------------------------------------------------------


def test_cells_come_out_as_they_were_written():
    made = json.loads(notebook('# %% [markdown]\n# # Title\n#\n# text\n\n# %% tags=["a"]\nx = "é"\n', "f.py"))
    nbformat.validate(nbformat.from_dict(made))
    text, code = made["cells"]
    assert text["source"] == ["# Title\n", "\n", "text"]
    assert (code["source"], code["metadata"]) == (['x = "é"'], {"tags": ["a"]})


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("x = 1\n# %%\n", "line 1: text before the first cell"),
        ("# %% markdown\n# text\n", "line 1: no head of a cell"),
        ("# %% [markdown]\ntext\n", "a line of text is no comment: `text`"),
        ("# %%\nx = (\n", "a cell cannot be read as Python"),
    ],
)
def test_a_source_that_is_no_notebook(source, problem):
    with pytest.raises(GradingError, match=re.escape(problem)):
        notebook(source, "f.py")


# -- what cells call ----------------------------------------------------------------------------------------


def test_set_up_never_replaces_a_platforms_torch(tmp_path):
    path = tmp_path / "requirements.txt"
    path.write_text("# why\ntorch>=2.6\nno-such-package>=1  # for all\ntqdm>=4\ntomli>=2; python_version < '3'\n")
    missing, kept = what_is_missing(path)
    assert missing == ["no-such-package>=1"]
    assert kept.keys() == {"torch", "tqdm"}  # pinned while pip installs what is missing
    path.write_text("torch>=999\n")
    with pytest.raises(Stop, match=r"torch .* is installed, and >=999 is needed: choose a newer runtime"):
        what_is_missing(path)
    path.write_text("tqdm>=999\n")
    assert what_is_missing(path) == (["tqdm>=999"], {})


def test_a_failed_installation_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "requirements.txt").write_text("torch>=2.6\nno-such-package>=1\n")
    monkeypatch.chdir(tmp_path)

    def pip(command):
        constraints = Path(command[command.index("--constraint") + 1]).read_text()
        assert re.fullmatch(r"torch==\S+\n", constraints)
        assert command[-1] == "no-such-package>=1"
        return ["Looking", "ERROR: none found", ""], 1

    monkeypatch.setattr("HW3.plumbing.notebook._run", pip)
    with pytest.raises(Stop) as stop:
        set_up()
    [line] = stop.value._render_traceback_()
    assert line == "pip could not install no-such-package>=1 (ERROR: none found): try again, or choose a newer runtime"


def test_a_storm_of_prints_leaves_the_end():
    code = "for i in range(10**6): print(i)\nprint('x' * 10**6)\nraise SystemExit('train.py: error: why')"
    process = _start(["-c", code])
    output = _Output(process, keep=LINES)
    while process.poll() is None:
        assert len("".join(output.lines())) < LINES * (WIDTH + 10)
    output.join()
    counted, *lines, last, error = output.lines()
    assert len(lines) + 2 == LINES
    assert (counted, lines[-1], error) == ("... (999,977 lines above)", "999999", "train.py: error: why")
    assert last == "x" * WIDTH + " ..."


def test_the_newest_picture_of_each_series(tmp_path):
    for name in ("loss.png", "samples_epoch_001.png", "samples_epoch_010.png", "recon_epoch_002.png", "other.png"):
        (tmp_path / name).touch()
    found = {series: path.name for series, path in newest_pictures(tmp_path).items()}
    assert found == {
        "loss": "loss.png",
        "recon": "recon_epoch_002.png",
        "samples": "samples_epoch_010.png",
    }
    assert newest_pictures(tmp_path / "nothing") == {}


def test_a_long_message_is_cut():
    assert shorten("a\nb\n") == "a\nb"
    cut = shorten("\n".join(["y" * 1000] * 40))
    assert len(cut) < 5000
    assert cut.endswith("(28 more lines)")


# -- Codespaces, and GitHub Classroom -------------------------------------------------------------------------


def test_what_the_workflow_and_the_container_run_is_there(handout):
    import yaml

    workflow = yaml.safe_load((handout / ".github/workflows/classroom.yml").read_text())
    steps = workflow["jobs"]["checks"]["steps"]
    container = json.loads((handout / ".devcontainer/devcontainer.json").read_text())
    commands = [step["run"] for step in steps if "run" in step] + [container["postCreateCommand"]]
    targets = {target for command in commands for target in re.findall(r"make ([\w-]+)", command)}
    assert targets == {"setup-cpu"}
    planned = subprocess.run(["make", "-n", *targets], cwd=handout, capture_output=True, text=True, check=True).stdout
    assert re.search(r"--index-url .?https://download\.pytorch\.org/whl/cpu", planned)
    [cache] = [step["with"] for step in steps if step.get("uses", "").startswith("actions/cache@")]
    assert cache["path"] == ".venv"
    assert "hashFiles('requirements.txt', 'Makefile')" in cache["key"]


def test_points_go_into_the_runs_summary(handout, tmp_path):
    summary = tmp_path / "summary.md"
    summary.write_text("what was there\n")
    command = [sys.executable, "-m", "pytest", "grading/", "-k", "guidance", "-p", "no:cacheprovider"]
    subprocess.run(
        command, cwd=handout, env=child_env(GITHUB_STEP_SUMMARY=str(summary)), capture_output=True, check=False
    )
    text = summary.read_text()
    assert text.startswith("what was there\n")
    assert "| `guidance` | 0 / 5 | to do |" in text
    assert "| **total** | **0 / 5** | |" in text
