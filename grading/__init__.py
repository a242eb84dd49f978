"""Checks for the graded functions. `pytest grading/` runs them; `python -m grading --help` has the rest."""

import sys

# Here, because all that comes after needs it. An old Python must be able to read this file.
if sys.version_info < (3, 10):  # noqa: UP036
    _old = ".".join(map(str, sys.version_info[:2]))
    sys.exit(f"grading: error: Python {_old} is too old, 3.10 is needed: make .venv anew with a newer one")
if sys.version_info < (3, 11):
    try:
        import tomli  # noqa: F401
    except ModuleNotFoundError:
        sys.exit("grading: error: tomli is not installed: pip install -r requirements.txt, or activate .venv")
