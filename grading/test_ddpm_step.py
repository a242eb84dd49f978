"""One step of DDPM: `GaussianDiffusion.ddpm_step`."""

import pytest

from grading.cases import all_cases


@pytest.mark.parametrize("case", all_cases("ddpm-step"), ids=lambda case: f"{'hidden-' * case.hidden}{case.name}")
def test_ddpm_step(case, check):
    check(case)
