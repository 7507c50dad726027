"""What was built, what the machine has, and which backends can serve."""

from __future__ import annotations

import platform
from typing import Any

import torch

from gkm_ops import cuda
from gkm_ops.backends import available_backends


def build_info() -> dict[str, Any]:
    """Facts about the installed package and the machine, as ``python -m gkm_ops info`` prints them.

    Returns:
        A dict of ``python``, ``torch``, ``threads``, ``compiler``, ``instruction_sets`` (compiled in, best
        first), ``instruction_set`` (the one that serves), ``cpu_features``, ``cuda`` (the architectures that
        the CUDA kernels were built for, and by what) and ``backends`` (device to backend to ``"available"``
        or the reason why not).

    Example:
        >>> build_info()["backends"]["cpu"]["eager"]
        'available'
    """
    info: dict[str, Any] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    try:
        from gkm_ops import _info
    except ImportError as error:
        info["compiler"] = f"nothing was compiled: {error}"
    else:
        info["compiler"] = _info.compiler()
        info["instruction_sets"] = _info.instruction_sets()
        try:
            info["instruction_set"] = _info.instruction_set()
        except RuntimeError as error:
            info["instruction_set"] = f"none: {error}"
        info["cpu_features"] = _info.cpu_features()
    info["cuda"] = cuda.built()
    info["backends"] = {device: available_backends(device) for device in ("cpu", "cuda")}
    return info
