"""The forward process: `GaussianDiffusion.q_sample`."""

import pytest

from grading.cases import all_cases


@pytest.mark.parametrize("case", all_cases("q-sample"), ids=lambda case: f"{'hidden-' * case.hidden}{case.name}")
def test_q_sample(case, check):
    check(case)
