"""What a student reads about a failed case."""

from __future__ import annotations

import json
from pathlib import Path

from grading.cases import Case
from grading.crashes import usual
from grading.judge import Verdict
from grading.rubric import Function

MISTAKES = Path(__file__).parent / "cases" / "mistakes.json"


def mistakes() -> dict[str, dict[str, str]]:
    """id -> name of a known mistake -> what to tell its author."""
    return json.loads(MISTAKES.read_text(encoding="utf-8"))


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
        lines += [f"  usually: {usual(verdict.problem)}"] * bool(usual(verdict.problem))
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
