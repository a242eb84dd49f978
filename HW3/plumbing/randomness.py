"""The global random generators: seeded, lent to pictures, kept in checkpoints.

Training draws from torch's global generators, because students' own code does. What looks at a model draws from the
same ones and puts them back, so that it moves nothing.
"""

from __future__ import annotations

from typing import Any

import torch


def random_state(device: torch.device) -> dict[str, Any]:
    """The state of the generators that training on this device draws from."""
    return {
        "device": device.type,
        "cpu": torch.get_rng_state(),
        "gpu": None if device.type == "cpu" else torch.get_device_module(device).get_rng_state(),
    }


def set_random_state(state: dict[str, Any], device: torch.device) -> bool:
    """Go on with the draws of a state; False if it is of another kind of device, where it means nothing."""
    torch.set_rng_state(state["cpu"].cpu())
    if state["device"] != device.type:
        return False
    if state["gpu"] is not None:
        torch.get_device_module(device).set_rng_state(state["gpu"].cpu())
    return True
