"""Imported by every track before anything else: a package that is not there, in one line."""

import sys
from importlib.util import find_spec

import HW3.plumbing.startup  # noqa: F401  what HW3 itself needs

for _package in ("h5py", "yaml", "torch"):
    if find_spec(_package) is None:
        sys.exit(f"extensions: error: {_package} is not installed: pip install -r requirements-extensions.txt")
