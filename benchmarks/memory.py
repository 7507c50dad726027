"""How much memory a call takes at its peak, by the kernel's own count of resident pages."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


def peak_above(call: Callable[[], T]) -> tuple[T, int]:
    """What a call returns, and how far resident memory rose above where it stood, in bytes.

    Free memory that the allocator holds is handed back first: a call that finds its temporaries there would
    seem to take none. Linux alone counts this.
    """
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    _CLEAR_REFS.write_text(_RESET_PEAK)
    before = _kilobytes("VmRSS")
    result = call()
    return result, (_kilobytes("VmHWM") - before) * 1024


def _kilobytes(name: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise RuntimeError(f"{_STATUS} has no {name}: memory is measured on Linux alone")
