"""Every small change of a solution loses points on its own function and on no other, or is proven to change nothing."""

from __future__ import annotations
import __future__

import ast
import copy
import importlib
import inspect
import re
import textwrap
import warnings
from collections.abc import Iterator
from functools import cache, partial

import pytest
import torch

from grading import driver
from grading.cases import Case, all_cases
from grading.hidden.reference.bank import PLACES
from grading.hidden.reference.verify import Trial
from grading.judge import run_and_judge
from grading.submission import FILES, Submission

TRIAL = Trial([case for case in all_cases() if case.hidden])
GRADIENTS = ("reparameterize", "kl", "conditioning")  # what training differentiates
TABLES = ("betas", "alphas", "alpha_bars", "alpha_bars_prev", "sqrt_alpha_bars", "sqrt_one_minus_alpha_bars")

# What survives, and why it is right for every documented input: the line as it is then.
EQUAL = {
    "reparameterize": {
        "return mu - torch.exp(0.5 * logvar) * torch.randn_like(mu)": "noise is symmetric",
    },
    "kl": {
        "return 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum(dim=-1)": "of (B, D) it is the same dimension",
    },
    "ddim-step": {
        "if False:": "with eta 0 the general case gives the same, as the noise has weight 0",
        "if eta == -1:": "the same; eta is not negative",
        "direction = (1 - ab_prev - variance).sqrt()": "a precaution: the difference is (1 - before)^2 now / (before "
        "(1 - now)) at eta 1, more below it, and 0 only where before is 1 and every term is exact",
        "direction = (1 - ab_prev - variance).clamp(min=-1).sqrt()": "the same",
    },
    "conditioning": {
        "return self.denoise(x, self.embed_time(t) - self.cond_proj(cond))": "any fusion will do",
        "return self.denoise(x, self.embed_time(t) * self.cond_proj(cond))": "any fusion will do",
        "return self.denoise(x, self.embed_time((t - 1).clamp(min=0)) + self.cond_proj(cond))": "any embedding, too",
    },
}
# The last argument gives rank, shape and dtype only, in which all that could stand there are alike.
_LIKE = re.compile(r"(self\.at\(self\.\w+, [^()]+, |randn_like\()\w+\)")

_SWAPPED: dict[type[ast.AST], list[type[ast.AST]]] = {
    ast.Add: [ast.Sub, ast.Mult],
    ast.Sub: [ast.Add, ast.Mult],
    ast.Mult: [ast.Div, ast.Add],
    ast.Div: [ast.Mult, ast.Sub],
    ast.Pow: [ast.Mult, ast.Add],
    ast.Eq: [ast.NotEq, ast.Gt],
    ast.Is: [ast.IsNot],
}


def solution(id: str) -> ast.FunctionDef:
    """The graded function in the tree's own code, without its docstring and annotations."""
    file, name = PLACES[id]
    found = importlib.import_module(FILES[file])
    for part in name.split("."):
        found = getattr(found, part)
    function = ast.parse(textwrap.dedent(inspect.getsource(found))).body[0]
    assert isinstance(function, ast.FunctionDef)
    function.body = function.body[1:]
    return function


def mutants(id: str) -> Iterator[tuple[str, str, ast.FunctionDef]]:
    """The line that is changed, what it is then, and the whole function; each change once."""
    original = solution(id)
    seen = {ast.unparse(original)}
    nodes = list(ast.walk(original))
    for i, node in enumerate(nodes):
        if isinstance(node, ast.arguments) or not isinstance(node, (ast.expr, ast.stmt)) or node is original:
            continue
        for new in changes(id, node, original):
            tree = copy.deepcopy(original)
            old = list(ast.walk(tree))[i]
            replaced = _Replace(old, new).visit(tree)
            ast.fix_missing_locations(replaced)
            text = ast.unparse(replaced)
            if text not in seen and not _in_arguments(original, node):
                seen.add(text)
                yield *_changed_line(original, replaced), replaced


def changes(id: str, node: ast.AST, function: ast.FunctionDef) -> Iterator[ast.AST]:
    """What may stand in the place of an expression or a statement."""
    if isinstance(node, ast.BinOp):
        for op in _SWAPPED.get(type(node.op), []):
            yield ast.BinOp(node.left, op(), node.right)
        yield from (node.left, node.right)
        if not isinstance(node.op, (ast.Add, ast.Mult)):
            yield ast.BinOp(node.right, node.op, node.left)
    elif isinstance(node, ast.UnaryOp):
        yield node.operand
    elif isinstance(node, ast.Compare):
        for op in _SWAPPED.get(type(node.ops[0]), []):
            yield ast.Compare(node.left, [op()], node.comparators)
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
        for value in (node.value + 1, node.value - 1, 2 * node.value, 0.5 * node.value, -node.value):
            yield ast.Constant(type(node.value)(value))
    elif isinstance(node, ast.Attribute) and node.attr in TABLES:
        yield from (ast.Attribute(node.value, table, node.ctx) for table in TABLES if table != node.attr)
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id != "self":
        names = [arg.arg for arg in function.args.args if arg.arg != "self"]
        names += [name.id for name in ast.walk(function) if isinstance(name, ast.Name) and type(name.ctx) is ast.Store]
        if node.id in names:
            yield from (ast.Name(name, node.ctx) for name in names if name != node.id)
            if node.id in ("t", "t_prev"):
                yield ast.parse(f"({node.id} - 1).clamp(min=0)", mode="eval").body
                yield ast.parse(f"{node.id}.flip(0)", mode="eval").body
                yield ast.parse(f"{node.id}[:1].expand(len({node.id}))", mode="eval").body
    elif isinstance(node, ast.Call):
        if isinstance(node.func, ast.Attribute):
            yield node.func.value  # the call left out
        yield from node.args
        for name in ("randn_like", "zeros_like", "ones_like", "rand_like"):
            if ast.unparse(node.func) == "torch.randn_like" and name != "randn_like":
                yield ast.Call(ast.parse(f"torch.{name}", mode="eval").body, node.args, node.keywords)
    elif isinstance(node, ast.Return) and not isinstance(node.value, ast.Tuple):
        for cast in ("float", "double", *(["detach"] * (id in GRADIENTS))):
            yield ast.Return(ast.Call(ast.Attribute(node.value, cast, ast.Load()), [], []))
    elif isinstance(node, ast.If):
        yield from (ast.If(ast.Constant(value), node.body, node.orelse) for value in (True, False))


class _Replace(ast.NodeTransformer):
    """Put one node in the place of another one, itself."""

    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        return copy.deepcopy(self.new) if node is self.old else self.generic_visit(node)


def _in_arguments(function: ast.FunctionDef, node: ast.AST) -> bool:
    return any(part is node for part in ast.walk(function.args)) or any(
        part is node for part in ast.walk(function.returns or function.args)
    )


def _changed_line(original: ast.FunctionDef, changed: ast.FunctionDef) -> tuple[str, str]:
    before, after = (ast.unparse(function).splitlines() for function in (original, changed))
    return next((old.strip(), new.strip()) for old, new in zip(before, after) if old != new)


def is_alike(before: str, after: str) -> bool:
    """Whether the lines differ only where nothing but the kind of a tensor is looked at."""
    return _LIKE.sub(r"\1like)", before) == _LIKE.sub(r"\1like)", after)


def submission(id: str, function: ast.FunctionDef) -> Submission:
    """The tree's own code with a changed function."""
    file, _ = PLACES[id]
    module = ast.Module([function], [])
    code = compile(module, f"<{id}>", "exec", flags=__future__.annotations.compiler_flag, dont_inherit=True)
    names = dict(vars(importlib.import_module(FILES[file])))
    exec(code, names)
    return Submission(replaced={PLACES[id]: names[function.name]})


def passes(changed: Submission, case: Case) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return run_and_judge(partial(driver.run, changed), case).passed
        except Exception:
            return False


@cache
def own(id: str) -> list[Case]:
    """The hidden cases of a function, the toy training last."""
    return sorted(TRIAL.of(id), key=lambda case: case.check == "toy")


@cache
def others(id: str) -> list[Case]:
    """The hidden cases of other functions that run this one too."""
    return [case for case in TRIAL.cases if case.id != id and id in TRIAL.touched(case)]


@pytest.mark.parametrize("id", PLACES)
def test_every_mutant_loses_on_its_own_function_and_on_no_other(id):
    survivors, costly, count = [], [], 0
    torch.manual_seed(0)
    for before, after, function in mutants(id):
        changed, count = submission(id, function), count + 1
        if all(passes(changed, case) for case in own(id)) and not is_alike(before, after):
            survivors.append(after)
        costly += [(after, case.id, case.name) for case in others(id) if not passes(changed, case)]
    print(f"{id}: {count} mutants")
    assert count > 20
    assert costly == []
    assert sorted(survivors) == sorted(EQUAL.get(id, {}))
