"""bench/quality.py: what is trained again for a lever, what its tables say, and that all of it works."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import quality
from bench.quality import LEVERS, SMOKE, TABLES, Lever, Runs, cell, table
from harness import assert_succeeds, run_here, run_script


class Recorded(Runs):
    """Runs that are only written down, each at a cost of 10 seconds."""

    def __init__(self, folder) -> None:
        super().__init__(folder, "digits", folder, [])
        self.commands: list[list[str]] = []

    def _run(self, command: list[str]) -> float:
        self.commands.append(command)
        return 10.0


def test_a_stage_is_trained_once_for_all_levers_that_leave_it_alone(tmp_path):
    runs = Recorded(tmp_path)
    base, cost = runs.train("tiny_sd", Lever(), 42)
    assert [command[0] for command in runs.commands] == ["train_vae.py", "train_clip.py", "train_tiny_sd.py"]
    assert cost == {"vae": 10, "clip": 10, "tiny_sd": 10}, "the whole chain is counted"
    assert runs.train("tiny_sd", Lever(guidance=(3, 1)), 42)[0] == base
    assert len(runs.commands) == 3
    other, _ = runs.train("tiny_sd", Lever({"vae": "--kl-weight 1"}), 42)
    assert [command[0] for command in runs.commands[3:]] == ["train_vae.py", "train_tiny_sd.py"], "in other latents"
    assert other != base
    runs.train("clip", Lever(), 43)
    assert len(runs.commands) == 6, "another seed is another run"


def test_every_lever_is_one_that_the_scripts_know():
    """A flag that has gone would be found after an hour of training."""
    for name, lever in LEVERS.items():
        for stage, flags in lever.flags.items():
            words = run_here(f"train_{stage}.py", "--help").stdout.split()
            for flag in flags.split():
                assert not flag.startswith("--") or flag in words, (name, stage, flag)
        assert lever == Lever() or any(lever.moves(stage) for stage in TABLES), name


def test_levers_move_what_they_are_about():
    assert [stage for stage in TABLES if Lever({"vae": "--kl-weight 1"}).moves(stage)] == [
        "vae",
        "latent_diffusion",
        "tiny_sd",
    ]
    assert [stage for stage in TABLES if Lever(guidance=(1, 1)).moves(stage)] == ["tiny_sd"]
    assert not Lever(drawing={"steps": 10}).moves("vae")


def test_cells_are_the_median_and_the_spread():
    assert cell([3.0, 1.0, 9.0], 1) == "3.0 (1.0–9.0)"
    assert cell([3.0], 2) == "3.00"
    keys = [key for key, *_ in TABLES["vae"]]
    assert table("vae", {"a": [dict.fromkeys(keys, 2.0)]}).splitlines()[-1] == "| a | 2.00 | 2.00 | 2 |"


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """What both benchmarks train on bundled digits, once."""
    return tmp_path_factory.mktemp("runs")


@pytest.mark.slow
def test_smoke(tmp_path, runs):
    done = run_script("bench/quality.py", "--smoke", "--runs", runs, "--json", tmp_path / "out.json")
    assert_succeeds(done)
    found = json.loads((tmp_path / "out.json").read_text())
    assert set(found["levers"]) == {"vae", "latent_diffusion", "tiny_sd"}
    assert set(found["levers"]["tiny_sd"]) == set(SMOKE)
    assert set(found["levers"]["vae"]) == {"quick"}, "guidance leaves it alone"
    for rows in found["levers"].values():
        for [metrics] in rows.values():
            assert metrics["cpu_seconds"] > 1
            assert metrics["frechet_ratio"] == pytest.approx(
                metrics["frechet_distance"] / found["real"]["frechet_distance"]
            )
    assert quality.TABLES.keys() >= found["levers"].keys()
    for head in ("| vae |", "| tiny_sd |", "| no guidance at all |"):
        assert head in done.stdout


@pytest.mark.slow
def test_smoke_of_variants(runs):
    names = ["the base", "flow matching", "FiLM", "adaLN", "v, sigmoid", "twice the epochs"]
    done = run_script("bench/variants.py", "--smoke", "--runs", runs, "--only", *names)
    assert_succeeds(done)
    for name in names:
        assert f"| {name} |" in done.stdout
