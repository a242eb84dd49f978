"""What a student reads about a failed case."""

from __future__ import annotations

import json
from pathlib import Path

from grading.cases import Case
from grading.crashes import usual
from grading.judge import Verdict
from grading.rubric import Function

MISTAKES = Path(__file__).parent / "cases" / "mistakes.json"

# A group of cases, as its name stands in the rubric -> the words for it in feedback, and what it asks.
GROUPS = {
    "hostile": ("short schedule", "few steps with large betas, where a wrong factor is far off"),
    "last": ("last step", "rows that end on clean data (t = 0, or t_prev = -1), among others"),
    "default": ("usual schedule", "1,000 steps, betas from 0.0001 to about 0.02"),
    "cosine": ("cosine schedule", "tables that are not those of a line"),
    "ranks": ("any rank", "a number per row, or videos: not only vectors and images"),
    "dtype": ("float64", "what is double stays double"),
    "single": ("one row", "a batch of one"),
    "noise": ("drawn noise", "noise that the function draws itself: fresh, standard normal, everywhere independent"),
    "deterministic": ("eta 0", "DDIM without noise, on a short schedule"),
    "stochastic": ("eta above 0", "DDIM with noise, on a short schedule"),
    "train": ("training mode", "draws and gradients after `.train()`"),
    "eval": ("eval mode", "the same after `.eval()`"),
    "moderate": ("moderate", "means and variances of the size that training has"),
    "extreme": ("extreme", "variances from tiny to huge"),
    "listens": ("listens", "the output depends on each input, of its own row"),
    "toy": ("learns", "a short training on two clusters"),
    "extrapolates": ("scale above 1", "beyond the conditional prediction"),
    "interpolates": ("scale below 1", "between the two predictions"),
    "edges": ("scale 0, 1 and below", "one of the two predictions, or what lies behind them"),
}


def mistakes() -> dict[str, dict[str, str]]:
    """id -> name of a known mistake -> what to tell its author."""
    return json.loads(MISTAKES.read_text(encoding="utf-8"))


def words(group: str) -> str:
    """What feedback calls a group of cases; one that `check` has not seen is called by its name."""
    return GROUPS[group][0] if group in GROUPS else group


def message(
    function: Function | None, case: Case, verdict: Verdict, hints: dict[str, dict[str, str]], level: str
) -> str:
    """What was asked, on which input, what came back, and the idea to revisit.

    function: None for whole samplers.  level: one of `rubric.LEVELS`, how much is told of what was measured.
    """
    if function is None:
        return (
            f"sample_{case.params['sampler']}: {verdict.problem}\n  asked:   {question(case)}\n"
            "  revisit: the loop is given; a wrong step, a changed sampler, or a changed table would explain this"
        )
    if verdict.problem.startswith(function.file):  # it cannot be imported, and nothing was asked
        return verdict.problem
    lines = [f"{function.id} ({function.name} in {function.file}): {verdict.problem}", f"  asked:   {question(case)}"]
    lines += causes(case, verdict, hints, level)
    if verdict.is_formal:
        reason = usual(verdict.problem)
        lines += [f"  usually: {reason}"] * bool(reason)
    elif not verdict.mistakes:
        lines.append(f"  revisit: {function.idea}")
    return "\n".join(lines)


def causes(case: Case, verdict: Verdict, hints: dict[str, dict[str, str]], level: str) -> list[str]:
    """A line for each mistake that is recognised, and for what was measured of the rest."""
    known = hints.get(case.id, {})
    lines = [f"  mistake: {known[name]}" for name in verdict.mistakes if name in known]
    found = [finding.sentence(level, hidden=case.hidden) for finding in verdict.findings]
    return [*dict.fromkeys(lines), *(f"  found:   {sentence}" for sentence in found if sentence)]


def question(case: Case) -> str:
    """The case in words: what was called, on what."""
    floats = next(array for array in case.inputs.values() if array.dtype.kind == "f")
    parts = [f"{case.call} on {tuple(floats.shape)} {floats.dtype}"]
    if "timesteps" in case.params:
        p = case.params
        cosine = p.get("schedule") == "cosine"
        betas = "cosine schedule" if cosine else f"betas from {p['beta_start']:g} to {p['beta_end']:g}"
        parts.append(f"T = {p['timesteps']}, {betas}")
    for name in ("t", "t_prev"):
        if name in case.inputs and case.inputs[name].ndim == 1:
            values = case.inputs[name].tolist()
            parts.append(f"{name} = {values if len(values) <= 8 else 'mixed'}")
    parts += [f"{name} = {case.params[name]:g}" for name in ("eta", "scale") if name in case.params]
    if "scales" in case.params:
        parts.append(f"scale = {' and '.join(f'{scale:g}' for scale in case.params['scales'])}")
    if "draws" in case.params:
        parts.append(f"{case.params['draws']} times")
    if "again" in case.params:
        parts.append("after a call with the same rows in another order")
    return ", ".join(parts)
