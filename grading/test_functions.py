"""Every graded function on all its cases. `-k kl` selects one of them, `-k ddim` all whose name has that in it."""

import pytest

from grading.cases import Case, all_cases
from grading.rubric import load_rubric

CASES = [case for id in load_rubric().functions for case in all_cases(id)]


def case_name(case: Case) -> str:
    return f"{case.id.replace('-', '_')}-{'hidden-' * case.hidden}{case.name}"


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_function(case, check):
    check(case)
