"""Whole samplers around networks that are known: each step, each t, each condition. They carry no points."""

import pytest

from grading.cases import all_cases


@pytest.mark.parametrize("case", all_cases("samplers"), ids=lambda case: f"{'hidden-' * case.hidden}{case.name}")
def test_samplers(case, check):
    check(case)
