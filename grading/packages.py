"""The packages that grading has: those of requirements.txt, and what they depend on."""

from __future__ import annotations

import re
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement


def needed_distributions(requirements: Path) -> list[Distribution]:
    """The distributions that a requirements file needs, directly or not, as far as they are installed."""
    lines = [line.partition("#")[0].strip() for line in requirements.read_text(encoding="utf-8").splitlines()]
    left = [line for line in lines if line]
    found: dict[str, Distribution] = {}
    while left:
        requirement = Requirement(left.pop())
        key = re.sub(r"[-_.]+", "-", requirement.name).lower()
        if key in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        try:
            found[key] = distribution(requirement.name)
        except PackageNotFoundError:  # the package fails at its import, or is not needed on this system
            continue
        left += found[key].requires or []
    return list(found.values())


def top_level(package: Distribution) -> dict[str, Path]:
    """Its files and folders in site-packages: name -> place."""
    folder = Path(str(package.locate_file("")))
    if record := package.read_text("RECORD"):
        names = {line.partition("/")[0].partition(",")[0] for line in record.splitlines()}
        return {name: folder / name for name in names - {"", "..", "__pycache__"}}
    # Packages of Linux distributions come without a record of their files.
    modules = (package.read_text("top_level.txt") or package.name).split()
    return {path.name: path for name in modules for path in (*folder.glob(name), *folder.glob(f"{name}.*"))}
