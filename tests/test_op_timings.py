"""Quick timings of each op for comparing two states of the code: `pytest tests/test_op_timings.py --benchmark-only`."""

import pytest
import torch
from problems import OPS, call

import gkm_ops


@pytest.fixture
def arguments():
    """GKMNet's bank on a 256 x 256 photo."""
    bank = gkm_ops.GaussianBank.gkmnet()
    image = torch.rand(1, 3, 256, 256)
    return {
        "x": image,
        "y": torch.rand_like(image),
        "coeffs": torch.rand(1, 22, 256, 256).softmax(1),
        "taps_w": bank.taps,
        "taps_h": bank.taps,
        "mix": None,
        "radii": list(bank.radii),
        "padding_mode": "reflect",
        "per_channel": False,
    }


@pytest.fixture(autouse=True)
def _as_users_run_it():
    """Without the poison, and on all threads."""
    threads = torch.get_num_threads()
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(torch.multiprocessing.cpu_count())
    yield
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(threads)


@pytest.mark.parametrize("op", OPS)
def test_op(benchmark, on_processor, arguments, op):
    benchmark(call, op, arguments)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_forward_and_backward(benchmark, arguments, dtype):
    bank = gkm_ops.GaussianBank.gkmnet()
    x, coeffs = (arguments[name].to(dtype).requires_grad_() for name in ("x", "coeffs"))

    def step():
        return torch.autograd.grad(gkm_ops.gkm_blur(x, coeffs, bank).sum(), (x, coeffs))

    benchmark(step)


def test_smallest_call(benchmark):
    """What a call costs before any pixel is touched."""
    bank, x, coeffs = gkm_ops.GaussianBank([0.0]), torch.rand(1, 1, 8, 8), torch.rand(1, 1, 8, 8)
    benchmark(gkm_ops.gkm_blur, x, coeffs, bank)
