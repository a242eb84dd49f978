"""Checks for the graded functions. `pytest grading/` runs them; `python -m grading --help` has the rest."""
