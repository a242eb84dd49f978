"""OUT/summary.html: what an instructor wants to know about the whole class.

How the points are spread, which functions were hard, which mistakes were made and by whom, what deserves a second look:
slow submissions, those that tried something odd, and code that is nearly the same.
"""

from __future__ import annotations

import io
import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from grading.hidden.reports.concealment import MAX_SHOWN
from grading.hidden.reports.feedback import rows
from grading.hidden.reports.files import write_atomically
from grading.hidden.reports.result import Absent, Change, Result
from grading.hidden.reports.similarity import MIN_OVERLAP, CodeIndex
from grading.hidden.reports.text import environment
from grading.rubric import Rubric

SLOWEST = 10
MAX_LOOKALIKES = 100  # shown on the page; those that overlap most come first


def write_summary(
    out: Path,
    results: list[Result],
    rubric: Rubric,
    code: CodeIndex | None = None,
    *,
    changes: Sequence[Change] = (),
    absent: Sequence[Absent] = (),
    strangers: Sequence[str] = (),
) -> None:
    """Write OUT/summary.html. Without `code`, nothing is compared. Raises GradingError when the disk refuses.

    changes: marks that are others than in the last tables.  absent: who handed nothing in.
    strangers: submissions of nobody in the roster.
    """
    results = sorted(results, key=lambda result: result.submission)
    functions = _functions(results, rubric)
    lookalikes = [] if code is None or code.problem else code.lookalikes()
    page = (
        environment()
        .get_template("summary.html")
        .render(
            rubric=rubric,
            results=results,
            spread=_spread([result.total for result in results]),
            functions=functions,
            histogram=_histogram([result.total for result in results], rubric.total) if results else "",
            pass_rates=_pass_rates(functions) if results else "",
            mistakes=_mistakes(results, rubric),
            STATES=STATES,
            statuses=Counter(status for result in results for status in result.statuses or ["ok"]).most_common(),
            slowest=sorted(results, key=lambda result: -result.seconds)[:SLOWEST],
            odd=[result for result in results if result.events],
            code=code,
            lookalikes=lookalikes,
            max_lookalikes=MAX_LOOKALIKES,
            max_words=MAX_SHOWN,
            min_overlap=MIN_OVERLAP,
            changes=changes,
            absent=absent,
            strangers=strangers,
        )
    )
    write_atomically(out / "summary.html", page.encode("utf-8"))


def _spread(totals: list[float]) -> dict[str, float]:
    if not totals:
        return {}
    low, middle, high = np.percentile(totals, [25, 50, 75])
    spread = {"mean": np.mean(totals), "median": middle, "lower quartile": low, "upper quartile": high}
    return {name: round(float(value), 1) for name, value in spread.items()}


@dataclass(frozen=True)
class FunctionSummary:
    """One graded function over the class. full: how many got all points.  mean: of the share of points, in percent."""

    id: str
    title: str
    full: int
    full_percent: int
    mean_percent: int


def _functions(results: list[Result], rubric: Rubric) -> list[FunctionSummary]:
    table = [rows(result, rubric) for result in results]
    found = []
    for i, function in enumerate(rubric.functions.values()):
        full = sum(line[i].full for line in table)
        mean = sum(line[i].result.points for line in table) / (max(1, len(table)) * function.points)
        percent = round(100 * full / max(1, len(table)))
        found.append(FunctionSummary(function.id, function.title, full, percent, round(100 * mean)))
    return found


@dataclass(frozen=True)
class Mistake:
    """One way to lose points, and who did. place: of the id in the rubric.

    state: of "not written", "missing", "broken", "another kind" and "wrong", the one that the answers are in.
    told: of wrong ones, the sentence about a known mistake, or what was measured; "" for an unknown one.
    """

    place: int
    id: str
    state: str
    told: str
    submissions: list[str]


def _mistakes(results: list[Result], rubric: Rubric) -> list[Mistake]:
    """By id in the rubric's order, then the most frequent first; what was not recognised, or never answered, last."""
    found: dict[tuple[int, str, str, str], list[str]] = {}
    for result in results:
        for row in rows(result, rubric):
            if not row.full:
                told = row.result.hint or row.result.finding
                state = "wrong" if told else _state(row.result.problem)
                found.setdefault((row.number, row.function.id, state, told), []).append(result.submission)
    return sorted(
        (Mistake(*what, names) for what, names in found.items()),
        key=lambda mistake: (mistake.place, not mistake.told, -len(mistake.submissions), mistake.state, mistake.told),
    )


STATES = {
    "not written": "not written",
    "missing": "its file is missing",
    "broken": "gives no answer: its file cannot be imported, or it raises or does not end",
    "another kind": "answers with something of another kind, shape or dtype",
    "wrong": "no known mistake recognised",
}
# What the judge says of functions that give no answer to judge.
_STATES = {
    r"not written yet": "not written",
    r"\S+ is missing": "missing",
    r"\S+ cannot be imported|raises |no answer in time|the (process|system|time) |too many ": "broken",
    r"it cannot be called|`\w+` (has (the|a)|could not)|something came back|the argument ": "another kind",
}


def _state(problem: str) -> str:
    return next((state for words, state in _STATES.items() if re.match(words, problem)), "wrong")


# -- charts -----------------------------------------------------------------------------------------------------

# Stand-ins that are replaced by the page's own colours, which know light from dark.
_COLOURS = {"#010203": "currentColor", "#010204": "var(--accent)", "#010205": "var(--track)", "#010206": "var(--soft)"}
_INK, _ACCENT, _TRACK, _SOFT = _COLOURS


def _histogram(totals: list[float], possible: float) -> Markup:
    edges = np.linspace(0, max(possible, 1e-9), 11)
    counts, _ = np.histogram(np.clip(totals, 0, possible), edges)

    def draw(axes: Any) -> None:
        bars = axes.bar(edges[:-1], counts, width=np.diff(edges) * 0.92, align="edge", color=_ACCENT)
        axes.bar_label(bars, [str(count) if count else "" for count in counts], color=_INK, padding=2)
        axes.set_xticks(edges, [f"{edge:g}" for edge in edges])
        axes.set_xlabel("total")
        axes.set_ylim(0, max(1, counts.max()) * 1.15)
        axes.set_yticks([])

    label = ", ".join(f"{a:g} to {b:g}: {n}" for a, b, n in zip(edges, edges[1:], counts))
    return _chart(draw, (6.4, 2.5), "histogram", f"Histogram of the totals. {label}")


def _pass_rates(functions: list[FunctionSummary]) -> Markup:
    places = np.arange(len(functions))[::-1]

    def draw(axes: Any) -> None:
        axes.barh(places, 100, color=_TRACK, height=0.62)
        axes.barh(places, [f.mean_percent for f in functions], color=_ACCENT, height=0.62)
        axes.vlines([f.full_percent for f in functions], places - 0.42, places + 0.42, color=_INK, linewidth=2)
        axes.set_yticks(places, [f.id for f in functions], parse_math=False)
        axes.set_xticks(range(0, 101, 25), [f"{share} %" for share in range(0, 101, 25)])
        axes.set_xlim(0, 100.4)

    label = "; ".join(f"{f.id}: {f.full_percent} % with all points, mean share {f.mean_percent} %" for f in functions)
    return _chart(draw, (6.4, 0.5 + 0.31 * len(functions)), "rates", label)


def _chart(draw: Any, size: tuple[float, float], name: str, label: str) -> Markup:
    """What `draw` puts on the axes, as SVG to stand in the page: the same bytes for the same numbers."""
    import matplotlib
    from matplotlib.figure import Figure

    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    settings: dict[Any, Any] = {
        "svg.hashsalt": name,
        "svg.fonttype": "none",
        "font.size": 10.5,
        "font.family": "sans-serif",
    }
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        axes.tick_params(colors=_SOFT, labelcolor=_INK, length=0)
        axes.xaxis.label.set_color(_SOFT)
        axes.spines[:].set_visible(False)
        draw(axes)
        stream = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(stream, format="svg", transparent=True, metadata=nothing)
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :]  # without the prolog, which names an address
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", svg)  # ids are unique in a page, not only in a chart
    svg = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", svg)  # the page's own typeface
    svg = re.sub(r'<svg width="[^"]*" height="[^"]*"', "<svg", svg, count=1)  # as wide as the page
    for stand_in, colour in _COLOURS.items():
        svg = svg.replace(stand_in, colour)
    return Markup(svg.replace("<svg", str(Markup('<svg role="img" aria-label="{}"').format(label)), 1))
