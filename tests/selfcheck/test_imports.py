"""What may import what, on the students' side."""

from __future__ import annotations

import ast

from harness import ROOT


def imports(module: str) -> set[str]:
    """The modules of grading that a module of it imports, wherever the statement stands."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found & set(MODULES)


MODULES = [f"grading.{path.stem}" for path in sorted((ROOT / "grading").glob("*.py"))]


def test_no_module_imports_itself_through_others():
    left = {module: imports(module) for module in MODULES}
    while leaves := [module for module, needs in left.items() if not needs & left.keys()]:
        for module in leaves:
            del left[module]
    assert left == {}
