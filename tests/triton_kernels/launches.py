"""Launches without a GPU: a driver that only notes which kernels are started, and with what.

Run without the interpreter. What the backend has kept of launches before must choose the kernel, and pass the
arguments, that Triton itself would.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

import gkm_ops
from gkm_ops.kernels import backend


class Utilities:
    """Loads nothing: a kernel is a number."""

    loaded = 0

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": 232448, "max_num_regs": 65536, "warpSize": 32}

    def load_binary(self, *args: Any) -> tuple[int, ...]:
        self.loaded += 1
        return 0, self.loaded, 0, 0, 1024


class Driver:
    """What Triton asks of a device, answered for an H100."""

    utils = Utilities()
    noted: list[tuple[Any, ...]]

    def launcher_cls(self, source: Any, metadata: Any) -> Any:
        def launch(x: int, y: int, z: int, stream: int, function: int, *others: Any) -> None:
            arguments = [(arg.dtype, arg.shape) if isinstance(arg, Tensor) else arg for arg in others[4:]]
            self.noted.append((function, (x, y, z), arguments))

        return launch

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def launches(self, call: Any) -> list[tuple[Any, ...]]:
        self.noted = []
        call()
        return self.noted


def calls() -> list[Any]:
    """Of one op, alike but in what decides on a kernel or its arguments."""
    bank = gkm_ops.GaussianBank([0.0, 1.0, 2.0], sizes=[1, 5, 9])
    wider = gkm_ops.GaussianBank([0.0, 1.0, 8.0], sizes=[1, 5, 49])

    def blur(x: Tensor, bank: gkm_ops.GaussianBank = bank, padding: str = "zeros") -> Any:
        coeffs = torch.rand(len(x), 3, *x.shape[2:], dtype=x.dtype)
        return lambda: backend.blur(x, coeffs, bank.taps, bank.taps, None, bank.radii, padding)

    x = torch.rand(1, 1, 16, 32)
    unaligned = torch.rand(16 * 32 + 1)[1:].view(1, 1, 16, 32)
    assert x.data_ptr() % 16 == 0 != unaligned.data_ptr() % 16
    return [
        blur(x),
        blur(unaligned),
        blur(x[:, :, :15]),
        blur(x[..., :31]),
        blur(torch.rand(1, 1, 1, 32)),
        blur(torch.rand(1, 3, 16, 32)),
        blur(x.half()),
        blur(x, wider),
        blur(x, padding="reflect"),
    ]


def main() -> None:
    recorder = Driver()
    driver.set_active(recorder)
    by_triton = []
    for call in calls():
        backend._compiled.clear()
        by_triton.append(recorder.launches(call))
    assert len({launches[-1][0] for launches in by_triton}) > 4, "the calls want several kernels"
    backend._compiled.clear()
    for _ in range(2):
        for call, wanted in zip(calls(), by_triton, strict=True):
            assert recorder.launches(call) == wanted
    backend._MOST_COMPILED = 1
    for call, wanted in zip(calls(), by_triton, strict=True):
        assert recorder.launches(call) == wanted


if __name__ == "__main__":
    main()
