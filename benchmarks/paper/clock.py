"""What is timed: calls, once what they compute is known to be right."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch


class DisagreementError(RuntimeError):
    """What is to be timed does not compute what it should."""


def seconds(call: Callable[[], object], device: str) -> float:
    """How long a call takes, until the device has done what it was given."""
    start = time.perf_counter()
    call()
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def named(device: str) -> str:
    """The device in words; of a processor the record's environment has them."""
    return torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else "cpu"
