"""q(x_{t-1} | x_t, x_0): `GaussianDiffusion.q_posterior`."""

import pytest

from grading.cases import all_cases


@pytest.mark.parametrize("case", all_cases("posterior"), ids=lambda case: f"{'hidden-' * case.hidden}{case.name}")
def test_ddpm_posterior(case, check):
    check(case)
