"""How the tests run a track's command: in this process, and what its errors must look like."""

from __future__ import annotations

from subprocess import CompletedProcess

from harness import run_here

# The smallest models that still do everything.
SMALL = {
    "data.source": "standin",
    **{"vae.epochs": 2, "vae.batch_size": 300, "vae.latent_dim": 12, "vae.width": 8},
    **{f"{stage}.{name}": value for stage in ("diffusion", "prior") for name, value in {
        "epochs": 2, "batch_size": 300, "time_dim": 8, "hidden_dim": 16, "timesteps": 20,
    }.items()},
    **{"classifier.epochs": 2, "classifier.batch_size": 300, "classifier.width": 8},
    **{"evaluate.rows": 20, "evaluate.noise_step": 10},
}  # fmt: skip


def changes(**more: object) -> list[str]:
    """SMALL as flags. Keyword arguments change it, with __ for the dot."""
    values = {**SMALL, **{name.replace("__", "."): value for name, value in more.items()}}
    return [flag for name, value in values.items() for flag in ("--set", f"{name}={value}")]


def structured(verb: str, *flags: object) -> CompletedProcess[str]:
    """`python -m extensions.structured VERB FLAGS...`"""
    return run_here("extensions.structured.__main__", verb, *flags)


def assert_refused(result: CompletedProcess[str], *parts: object) -> None:
    """Exit code 2 and one line on stderr, which says all of this."""
    lines = result.stderr.splitlines()
    assert (result.returncode, len(lines)) == (2, 1), result.stderr
    assert lines[0].startswith("extensions.structured: error: "), lines[0]
    missing = [str(part) for part in parts if str(part) not in lines[0]]
    assert not missing, f"{missing} not in: {lines[0]}"
