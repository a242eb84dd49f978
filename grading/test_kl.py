"""The KL divergence: `kl_divergence`."""

import pytest

from grading.cases import all_cases


@pytest.mark.parametrize("case", all_cases("kl"), ids=lambda case: f"{'hidden-' * case.hidden}{case.name}")
def test_kl(case, check):
    check(case)
