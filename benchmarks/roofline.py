"""The processor's own limits, measured by a small C++ program of ours beside the op that is held against them."""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from benchmarks.problem import CHANNELS

# Useful multiply-adds and adds a pixel and colour: 133 for the row passes (the 22 kernels' taps on one side
# and the centre), 244 for the column passes, 22 for the blend; and the 10 sums of neighbours that the row
# passes share. An add counts as a multiply-add, though some processors have other units for it.
USEFUL_WORK = 133 + 244 + 22 + 10

_SOURCE = Path(__file__).parent / "native" / "peak.cpp"
_FLAGS = ["-std=c++17", "-O2", "-ffp-contract=fast", "-shared", "-fPIC", "-pthread"]
_WARM_UP_S = 0.006
_MEASURE_S = 0.006
_COPY_BYTES = 1 << 26


def useful_work(size: tuple[int, int]) -> int:
    """Multiply-adds and adds that one forward pass of the published bank needs."""
    return USEFUL_WORK * CHANNELS * size[0] * size[1]


def peak_multiply_adds(instruction_set: str, threads: int) -> float:
    """Float32 multiply-adds a second, out of registers, on so many threads.

    Raises:
        ValueError: this processor does not have the instruction set.
    """
    rate = float(_library().peak_multiply_adds(instruction_set.encode(), threads, _WARM_UP_S, _MEASURE_S))
    if rate < 0:
        raise ValueError(f"instruction_set: got {instruction_set!r}, which this processor does not have")
    return rate


def copy_bandwidth(threads: int) -> float:
    """Bytes a second, read and written together, of copies larger than a cache."""
    return float(_library().copy_bandwidth(threads, _COPY_BYTES, 0.05, 0.2))


def compiler() -> str | None:
    """The C++ compiler's path: ``$CXX``, else g++ or whatever c++ is."""
    candidates = (os.environ.get("CXX"), "g++", "c++")
    return next((path for name in candidates if name and (path := shutil.which(name))), None)


@functools.cache
def _library() -> ctypes.CDLL:
    path = compiler()
    if path is None:
        raise RuntimeError("the roofline needs a C++ compiler: neither $CXX nor g++ nor c++ is to be found")
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder) / "peak.so"
        subprocess.run([path, *_FLAGS, str(_SOURCE), "-o", str(built)], check=True)
        library = ctypes.CDLL(str(built))  # stays loaded when the file is gone
    library.peak_multiply_adds.restype = ctypes.c_double
    library.peak_multiply_adds.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_double, ctypes.c_double]
    library.copy_bandwidth.restype = ctypes.c_double
    library.copy_bandwidth.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_double, ctypes.c_double]
    return library
