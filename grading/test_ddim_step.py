"""One step of DDIM: `GaussianDiffusion.ddim_step`."""

import pytest

from grading.cases import all_cases


@pytest.mark.parametrize("case", all_cases("ddim-step"), ids=lambda case: f"{'hidden-' * case.hidden}{case.name}")
def test_ddim_step(case, check):
    check(case)
