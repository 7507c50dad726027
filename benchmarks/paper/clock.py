"""What is timed: calls, once what they compute is known to be right."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch


class DisagreementError(RuntimeError):
    """What is to be timed does not compute what it should."""


def seconds(call: Callable[[], object], device: str) -> float:
    """How long a call takes, until the device has done what it was given.

    With one thread on a processor it is the time that the core gave to it, which other work on the machine does not
    lengthen.
    """
    on_gpu = torch.device(device).type == "cuda"
    now = time.process_time if not on_gpu and torch.get_num_threads() == 1 else time.perf_counter
    start = now()
    call()
    if on_gpu:
        torch.cuda.synchronize(device)
    return now() - start


def named(device: str) -> str:
    """The device in words; of a processor the record's environment has them."""
    return torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else "cpu"
