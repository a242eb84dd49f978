"""Classifier-free guidance: `guided_eps`."""

import pytest

from grading.cases import all_cases


@pytest.mark.parametrize("case", all_cases("guidance"), ids=lambda case: f"{'hidden-' * case.hidden}{case.name}")
def test_guidance(case, check):
    check(case)
