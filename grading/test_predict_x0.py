"""The estimate of the clean data: `GaussianDiffusion.predict_x0`."""

import pytest

from grading.cases import all_cases


@pytest.mark.parametrize("case", all_cases("predict-x0"), ids=lambda case: f"{'hidden-' * case.hidden}{case.name}")
def test_predict_x0(case, check):
    check(case)
