"""What a worker sees of this machine, and what of that may be told.

Its interpreter looks for modules in three folders that are made for it: `tree`, a copy of the handout's code and the
worker's own, and `stdlib` and `packages`, which hold a link to each thing that may be imported. So what a submission
may not read is not there, as if it had never been installed. Were it there and forbidden, libraries would fail: around
`import pandas` they expect an ImportError and no PermissionError. The links keep nobody out; Landlock does.
"""

from __future__ import annotations

import json
import os
import re
import site
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

from grading.hidden.handout.release import build, write_tree
from grading.packages import needed_distributions, top_level
from grading.submission import ROOT

# What is copied to where the zygote runs, of this folder.
WORKER_FILES = ("__init__.py", "frames.py", "pages.py", "confinement.py", "zygote.py")

_SITES = ("site-packages", "dist-packages")
_STDLIBS = {Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")}


class Surroundings:
    """The folder of a zygote. Made on the first use of `folder`, found there later.

    search_path: where its interpreter looks for modules.  readable: what its workers may read.
    """

    def __init__(self, folder: Path) -> None:
        tree, stdlib, packages = (folder / name for name in ("tree", "stdlib", "packages"))
        modules, installed = _standard_library(), _installed()
        if not tree.is_dir():
            _link(stdlib, modules)
            _link(packages, installed)
            write_tree(tree, worker_tree())
        self.search_path = [str(path) for path in (tree, stdlib, stdlib / "lib-dynload", packages)]
        shown = ("HW3", "train_tiny_sd.py", "grading/driver.py", "grading/submission.py")
        paths = [stdlib, packages, *(tree / place for place in shown), *_system_files()]
        self.readable = sorted({path for path in [*paths, *modules.values(), *installed.values()] if path.exists()})
        sites = {path.parent for path in installed.values()} | {Path(sysconfig.get_path("purelib"))}
        self._folder, self._places = folder, Places(folder, sites)

    def dispensable(self, folders: Iterable[Path]) -> list[Path]:
        """The folders in which lies nothing that a worker or its interpreter needs, resolved, none within another."""
        needed = [self._folder, *self.readable, *map(Path, (sys.prefix, sys.base_prefix, sys.exec_prefix))]
        needed += [path.resolve() for path in needed]
        resolved = {folder.resolve() for folder in folders}
        found = {folder for folder in resolved if not any(path.is_relative_to(folder) for path in needed)}
        return sorted(folder for folder in found if found.isdisjoint(folder.parents))

    def without_places(self, text: str, *, is_cut: bool) -> str:
        """What came out of a worker, without this machine's paths. is_cut: whether its end is missing."""
        return self._places.remove(text, is_cut=is_cut)


def worker_tree() -> dict[str, bytes]:
    """Place -> content: the handout's code and the worker's own, without any case, expectation or solution."""
    handout, _ = build(ROOT)
    given = [place for place in handout if place.startswith("HW3/")]
    given += [
        "train_tiny_sd.py",
        "grading/__init__.py",
        "grading/errors.py",
        "grading/submission.py",
        "grading/crashes.py",
    ]
    tree = {place: handout[place] for place in [*given, "grading/driver.py"]}
    tree["grading/hidden/__init__.py"] = b""
    here = Path(__file__).parent
    return tree | {f"grading/hidden/sandbox/{name}": (here / name).read_bytes() for name in WORKER_FILES}


def _link(folder: Path, targets: dict[str, Path]) -> None:
    folder.mkdir()
    for name, target in targets.items():
        (folder / name).symlink_to(target)


# -- what may be imported, name -> place ------------------------------------------------------------------


def _standard_library() -> dict[str, Path]:
    return {path.name: path for folder in _STDLIBS for path in folder.iterdir() if path.name not in _SITES}


def _installed() -> dict[str, Path]:
    """The packages of requirements.txt and those that they need, with their metadata, as far as they are installed."""
    packages = needed_distributions(ROOT / "requirements.txt")
    return {name: place for package in packages for name, place in top_level(package).items()}


def _system_files() -> list[Path]:
    """What the interpreter and the packages need of the system: libraries, and files that tell of no person or work."""
    names = ("/etc/ld.so.cache", "/etc/mime.types", "/dev/urandom", "/dev/zero", "/usr/share/zoneinfo")
    paths = [Path(name) for name in (*names, "/proc/cpuinfo", "/proc/meminfo")]
    triplet = sysconfig.get_config_var("MULTIARCH") or "none"
    for libraries in (Path(f"/lib/{triplet}"), Path(f"/usr/lib/{triplet}"), Path("/lib64"), Path("/usr/lib64")):
        # On some systems Python's own packages lie among the libraries.
        paths += libraries.glob("*.so*") if any(libraries.glob("python3*")) else [libraries]
    if shared := sysconfig.get_config_var("LIBDIR"):
        paths += Path(shared).glob("libpython*")
    return paths


# -- what may be told ---------------------------------------------------------------------------------------

_EVERYWHERE = {"/", "/usr", "/usr/local"}  # tell nothing about a machine


class Places:
    """The paths of this machine that students do not see.

    folder: the zygote's.  sites: where packages are installed.
    """

    def __init__(self, folder: Path, sites: set[Path]) -> None:
        # What lies below these is told from there on: `scipy/special/__init__.py`.
        roots = [folder / name for name in ("tree", "stdlib/lib-dynload", "stdlib", "packages")]
        roots += [*sites, Path(site.getusersitepackages()), *(path / "lib-dynload" for path in _STDLIBS), *_STDLIBS]
        # Of what lies below these, only the last name is told.
        home = Path(os.path.expanduser("~"))  # stays "~" for a user who has none
        inner = {folder, ROOT, home, Path(sys.prefix), Path(sys.base_prefix), Path(sys.exec_prefix)}
        inner = {path for path in inner if path.is_absolute()}
        inner |= {path.resolve() for path in inner}
        self._hidden = _forms(inner | {above for path in inner for above in path.parents if len(above.parts) > 2})
        boxes = [rf"{re.escape(form)}/box-\w+/(?:code|scratch)" for form in _forms({folder, folder.resolve()})]
        below = "|".join([*boxes, *map(re.escape, _forms({path for root in roots for path in (root, root.resolve())}))])
        hidden = "|".join(map(re.escape, self._hidden))
        self._pattern = re.compile(rf"(?:{below})(?:(/+)|(?![\w.-]))|(?:{hidden})((?:/+[^\s/:;,'\"<>()\[\]]*)*)")

    def remove(self, text: str, *, is_cut: bool) -> str:
        """The text without them. is_cut: it may end in the middle of one."""
        text = self._pattern.sub(_shortened, text)
        if is_cut:
            longest = max(map(len, self._hidden))
            ends = (text[-size:] for size in range(min(longest, len(text)), 0, -1))
            end = next((end for end in ends if any(place.startswith(end) for place in self._hidden)), "")
            text = text.removesuffix(end)
        return text


def _forms(paths: set[Path]) -> list[str]:
    """The paths as texts show them, the longest first: as they are, and as `ascii` and JSON write them."""
    texts = {str(path) for path in paths} - _EVERYWHERE
    forms = texts | {ascii(text)[1:-1] for text in texts} | {json.dumps(text)[1:-1] for text in texts}
    return sorted(forms, key=lambda form: (-len(form), form))


def _shortened(match: re.Match[str]) -> str:
    separator, rest = match.groups()
    if rest is None:  # below a folder that is left out, or that folder itself
        return "" if separator else "."
    names = rest.strip("/").split("/")
    return f"…/{names[-1]}" if names[-1] else "…"
