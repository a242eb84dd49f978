"""What a student reads about a failed case."""

from __future__ import annotations

import json
from pathlib import Path

from grading.cases import Case
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
            f"sample_{case.params['sampler']}: {verdict.problem}\n  asked:   {_question(case)}\n"
            "  revisit: the loop is given; a wrong step, a changed sampler, or a changed table would explain this"
        )
    hint = hints.get(case.id, {}).get(verdict.mistake or "")
    lines = [f"{function.id} ({function.name} in {function.file}): {verdict.problem}"]
    lines.append(f"  asked:   {_question(case)}")
    if hint:
        return "\n".join([*lines, f"  mistake: {hint}"])
    found = verdict.finding.sentence(level, hidden=case.hidden) if verdict.finding else ""
    lines += [f"  found:   {found}"] * bool(found) + [f"  revisit: {function.idea}"]
    return "\n".join(lines)


def _question(case: Case) -> str:
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
