"""The reparameterisation trick: `ConvVAE.reparameterize`."""

import pytest

from grading.cases import all_cases


@pytest.mark.parametrize("case", all_cases("reparameterize"), ids=lambda case: f"{'hidden-' * case.hidden}{case.name}")
def test_reparameterize(case, check):
    check(case)
