"""The denoiser that listens to text: `EpsMLPCond.forward`."""

import pytest

from grading.cases import all_cases


@pytest.mark.parametrize("case", all_cases("conditioning"), ids=lambda case: f"{'hidden-' * case.hidden}{case.name}")
def test_conditioning(case, check):
    check(case)
