"""Mutants of the tree's own answers: in each, one thing in one solution region is another.

Operators, constants, comparisons, names of tables and of arguments, indices, roots and exponentials, dropped terms and
dropped statements: what a slip of the pen changes. A mutant is a function, to stand in a `Submission` for the graded
one.
"""

from __future__ import annotations

import ast
import copy
import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from grading.hidden.handout.regions import find_regions
from grading.hidden.reference.bank import PLACES
from grading.submission import FILES, Submission
from harness import ROOT

_OPERATORS: dict[type[ast.operator], tuple[type[ast.operator], ...]] = {
    ast.Add: (ast.Sub, ast.Mult),
    ast.Sub: (ast.Add, ast.Mult),
    ast.Mult: (ast.Div, ast.Add),
    ast.Div: (ast.Mult, ast.Sub),
    ast.Pow: (ast.Mult,),
}
_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq,
    ast.Is: ast.IsNot,
    ast.Gt: ast.GtE,
    ast.Lt: ast.LtE,
}
_TABLES = ("betas", "alphas", "alpha_bars", "alpha_bars_prev", "sqrt_alpha_bars", "sqrt_one_minus_alpha_bars")
_CALLS = {
    "sqrt": ("square", "exp"),
    "square": ("sqrt", "abs"),
    "exp": ("square", "sqrt"),
    "sum": ("mean",),
    "randn_like": ("rand_like", "zeros_like", "ones_like"),
}
_INDICES = {"t - 1": "({} - 1).clamp(min=0)", "t + 1": "({} + 1).clamp(max=len(self.betas) - 1)"}


@dataclass(frozen=True)
class Mutant:
    """One wrong, or accidentally right, implementation of a graded function.

    change: "before -> after" of what was changed.  line: the line of the file that it stands in.
    """

    id: str
    change: str
    line: int
    function: Callable[..., Any]

    def __str__(self) -> str:
        return f"{self.id}, line {self.line}: {self.change}"

    def submission(self) -> Submission:
        """The tree's own code with this mutant in the place of the graded function."""
        return Submission(replaced={PLACES[self.id]: self.function})


@cache
def mutants(id: str) -> tuple[Mutant, ...]:
    """All mutants of one graded function, each another text."""
    file, name = PLACES[id]
    source = (ROOT / file).read_text(encoding="utf-8")
    region = next(region for region in find_regions(source, file) if region.id == id)
    tree = ast.parse(source)
    wanted = name.rpartition(".")[2]
    function = next(
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name == wanted and node.lineno <= region.first <= _end(node)
    )
    module, found = importlib.import_module(FILES[file]), {ast.unparse(function): None}
    for node in ast.walk(function):
        if not region.first < getattr(node, "lineno", 0) <= region.last:
            continue
        for after in _changes(node, _names(function)):
            changed = _replaced(function, node, after)
            text = ast.unparse(changed)
            if text not in found:
                change = f"{ast.unparse(node)} -> {ast.unparse(after) if after else 'nothing'}"
                found[text] = Mutant(id, change, node.lineno, _made(text, wanted, dict(vars(module))))
    return tuple(mutant for mutant in found.values() if mutant)


def _end(node: ast.FunctionDef) -> int:
    return node.end_lineno or node.lineno


def _names(function: ast.FunctionDef) -> list[str]:
    """Its arguments, and the names of two and more that one statement gives values to."""
    arguments = [argument.arg for argument in function.args.args if argument.arg != "self"]
    stored = [node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    return list(dict.fromkeys([*arguments, *stored]))


def _changes(node: ast.AST, names: list[str]) -> Iterator[ast.AST | None]:
    """What may stand in the place of a node; None for nothing."""
    if isinstance(node, ast.If):
        yield None
    elif isinstance(node, ast.BinOp):
        for other in _OPERATORS.get(type(node.op), ()):
            yield ast.BinOp(node.left, other(), node.right)
        yield node.left
        yield node.right
        if isinstance(node.op, (ast.Sub, ast.Div)):
            yield ast.BinOp(node.right, node.op, node.left)
    elif isinstance(node, ast.Compare):
        for op in node.ops:
            if type(op) in _COMPARISONS:
                yield ast.Compare(node.left, [_COMPARISONS[type(op)]()], node.comparators)
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
        value = node.value
        for other in {value + 1, value - 1, 2 * value, value / 2, -value} - {value}:
            yield ast.Constant(int(other) if type(value) is int and other == int(other) else other)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        yield from _calls(node, node.func)
    elif isinstance(node, ast.Attribute) and node.attr in _TABLES:
        for table in _TABLES:
            if table != node.attr:
                yield ast.Attribute(node.value, table, node.ctx)
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in names:
        for other in names:
            if other != node.id:
                yield ast.Name(other, node.ctx)


def _calls(node: ast.Call, function: ast.Attribute) -> Iterator[ast.AST]:
    for other in _CALLS.get(function.attr, ()):
        yield ast.Call(ast.Attribute(function.value, other, function.ctx), node.args, node.keywords)
    if function.attr in ("sqrt", "square", "exp", "clamp"):
        yield function.value if not node.args else node.args[0]
    if function.attr == "at":  # self.at(table, t, like)
        for template in _INDICES.values():
            shifted = ast.parse(template.format(ast.unparse(node.args[1])), mode="eval").body
            yield ast.Call(function, [node.args[0], shifted, node.args[2]], [])
        yield ast.Call(function, [node.args[0], _first_of(node.args[1]), node.args[2]], [])


def _first_of(index: ast.expr) -> ast.expr:
    """The first row's index in every row."""
    text = ast.unparse(index)
    return ast.parse(f"({text})[:1].expand(len({text}))", mode="eval").body


def _replaced(function: ast.FunctionDef, node: ast.AST, after: ast.AST | None) -> ast.FunctionDef:
    number = next(i for i, each in enumerate(ast.walk(function)) if each is node)
    changed = copy.deepcopy(function)
    target = list(ast.walk(changed))[number]

    class Replace(ast.NodeTransformer):
        def visit(self, each: ast.AST) -> Any:
            return copy.deepcopy(after) if each is target else self.generic_visit(each)

    Replace().visit(changed)
    return ast.fix_missing_locations(changed)


def _made(text: str, name: str, namespace: dict[str, Any]) -> Callable[..., Any]:
    """The function that a text defines, among the names of its module."""
    exec(compile(text, f"<mutant of {name}>", "exec"), namespace)
    return namespace[name]
