"""A small data set of the real one's schema, for where that is not: every pair of type and part, with random numbers.

What is written follows the real rows' patterns closely enough for all code to run and a model to learn something.
Numbers measured on it say nothing of the real data.
"""

from __future__ import annotations

import random
from collections.abc import Callable

ROWS_PER_PAIR = 40
Row = tuple[str, str, str]  # type, part, expr

_BELL = "exp(-((x{a:+.3f})^2+(y{b:+.3f})^2)/({c:.3f}*(1+t)))"
_DISTANCE = "sqrt((x{a:+.3f})^2+(y{b:+.3f})^2)"
_DECAY = "exp(-(({m}^2)*pi^2*{c:.3f}*t)/({d:.3f}^2))"
_MODE = "sin({n}*pi*x)*cos({c:.3f}*pi*t*{n})"

# In the patterns: a and b of either sign, c and d positive, m odd, k below 5 and n below 17 are modes.
PATTERNS: dict[tuple[str, str], str] = {
    ("burgers", "average"): "({a:.3f}{b:+.3f})/2",
    ("burgers", "shock_term"): "(({c:.3f}{b:+.3f})/2)*tanh(((x{a:+.3f}-{d:.3f}*t)*({c:.3f}{b:+.3f}))/(4*{d:.3f}))",
    ("diffusion", "combined_mode"): "{a:.3f}*sin(({m}*pi*x)/{d:.3f})*" + _DECAY,
    ("diffusion", "decay"): _DECAY,
    ("diffusion", "sine"): "{a:.3f}*sin(({m}*pi*x)/{d:.3f})",
    ("outgoing", "envelope"): "1+{c:.3f}/exp(((x{a:+.3f})^2+(y{b:+.3f})^2)/({d:.3f}+{d:.3f}*t))",
    ("outgoing", "extra_decay"): "exp(-{d:.3f}*t)",
    ("outgoing", "oscillatory"): "cos({c:.3f}*" + _DISTANCE + "-{d:.3f}*t)",
    ("poisson_gauss", "exp_with_mask"): "{c:.2f}e-{k}*exp((-1*((x-{d:.2f})^2+(y-{d:.2f})^2))/(2*({d:.2f})^2))",
    ("shallow", "decay"): "exp(-{d:.3f}*t)",
    ("shallow", "envelope"): "1+{c:.3f}*" + _BELL,
    ("shallow", "oscillation"): "cos({d:.3f}*" + _DISTANCE + "-{c:.3f}*t)",
    ("shallow", "ux"): "(x*{c:.12f})/(" + _DISTANCE + ")",
    ("shallow", "uy"): "(y*{c:.12f})/(" + _DISTANCE + ")",
    ("wave_16", "combined_mode_wave"): "({a:.3f}e-4)*" + _MODE,
    ("wave_16", "cosine_part"): "cos({c:.3f}*pi*t*{n})",
    ("wave_16", "sine_part"): "sin({n}*pi*x)*({a:.3f}e-4)",
    ("wave_4", "combined_mode_wave"): "({a:.3f}e-{k})*" + _MODE.replace("{n}", "{k}"),
    ("wave_4", "cosine_part"): "cos({c:.3f}*pi*t*{k})",
    ("wave_4", "sine_part"): "sin({k}*pi*x)*({a:.3f}e-{k})",
}

# Of these the real rows are random trees of operators and functions, over x alone or over x and y.
TREES: dict[tuple[str, str], tuple[int, str]] = {
    ("ode_pde", "ode_depth_2"): (1, "x"),
    ("ode_pde", "ode_depth_3"): (2, "x"),
    ("ode_pde", "pde_xy_depth_2"): (1, "xy"),
    ("ode_pde", "pde_xy_depth_3"): (2, "xy"),
    ("ode_pde", "pde_xy_depth_4"): (3, "xy"),
}


def standin_rows(per_pair: int = ROWS_PER_PAIR) -> list[Row]:
    """The rows, the same ones every time."""
    source = random.Random(0)
    drawn: list[Row] = []
    for (kind, part), pattern in PATTERNS.items():
        drawn += [(kind, part, _fill(pattern, source.random)) for _ in range(per_pair)]
    for (kind, part), (depth, names) in TREES.items():
        drawn += [(kind, part, _tree(depth, names, source.random)) for _ in range(per_pair)]
    return drawn


def _fill(pattern: str, uniform: Callable[[], float]) -> str:
    """A pattern with random numbers. (Of `random` only random() is the same in every version of Python.)"""
    return pattern.format(
        a=_signed(uniform), b=_signed(uniform), c=0.1 + 2 * uniform(), d=0.1 + 0.8 * uniform(),
        m=1 + 2 * int(3 * uniform()), k=1 + int(4 * uniform()), n=1 + int(16 * uniform()),
    )  # fmt: skip


def _signed(uniform: Callable[[], float]) -> float:
    size = 0.1 + 4 * uniform()
    return size if uniform() < 0.5 else -size


def _tree(depth: int, names: str, uniform: Callable[[], float]) -> str:
    """A random expression of operators, functions, names and numbers."""
    if depth == 0:
        leaves = (*names, *(f"{name}^2" for name in names), str(1 + int(12 * uniform())))
        return leaves[int(len(leaves) * uniform())]
    inside = _tree(depth - 1, names, uniform)
    if uniform() < 0.4:
        return f"{('sin', 'cos', 'exp', 'log')[int(4 * uniform())]}({inside})"
    return f"({inside}){'+-*/'[int(4 * uniform())]}({_tree(depth - 1, names, uniform)})"
