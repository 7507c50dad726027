"""Tensors past 2^31 elements, where 32-bit offsets would wrap."""

import pytest
import torch
from problems import IMAGE_OPS, Problem, call

import gkm_ops

LIMIT = 2**31


def meta(*shape):
    return torch.empty(shape, dtype=torch.bfloat16, device="meta")


def test_shapes_without_memory():
    side = 30_000
    x, y, coeffs = meta(2, 3, side, side), meta(2, 3, side, side), meta(2, 22, side, side)
    bank = gkm_ops.GaussianBank.gkmnet().to("meta")
    assert x.numel() > LIMIT
    assert gkm_ops.gkm_blur(x, coeffs, bank).shape == x.shape
    assert gkm_ops.gkm_blur_adjoint(y, coeffs, bank).shape == y.shape
    assert gkm_ops.gkm_correlate(x, y, bank).shape == coeffs.shape
    assert gkm_ops.gaussian_stack(x, bank).numel() == 22 * x.numel()


def test_flop_counts_without_overflow():
    from torch.utils.flop_counter import FlopCounterMode

    side = 30_000
    bank = gkm_ops.GaussianBank.gkmnet().to("meta")
    with FlopCounterMode(display=False) as counter:
        gkm_ops.gkm_blur(meta(1, 3, side, side), meta(1, 22, side, side), bank)
    assert counter.get_total_flops() == 2 * 3 * side**2 * (2 * 244 + 22)


@pytest.mark.parametrize("op", IMAGE_OPS)
def test_views_of_few_numbers_that_span_many(on_processor, op):
    """Strides past 2^31 elements over storage that the kernel never reads in between."""
    required_gib = 5
    skip_unless_available(required_gib)
    problem = Problem(batch=2, channels=1, height=20, width=33, bank="skew")
    arguments = problem.arguments(torch.bfloat16)
    want = call(op, arguments)
    room = torch.empty(0, dtype=torch.bfloat16)
    room.untyped_storage().resize_(2 * (LIMIT + 20 * 33 * 8))  # pages that nobody writes to cost no memory
    for name in ("x", "y", "coeffs"):
        tensor = arguments[name]
        view = room.as_strided(tensor.shape, (LIMIT + 7, 20 * 33, 33, 1))
        arguments[name] = view.copy_(tensor)
        assert torch.equal(call(op, arguments), want)
        arguments[name] = tensor


def test_output_past_the_limit():
    """A stack of more than 2^31 elements; its last maps are those of a smaller call."""
    side, kernels, channels = 512, 34, 256
    gib = 2 * side**2 * kernels * channels / 2**30
    skip_unless_available(2 * gib)
    bank = gkm_ops.GaussianBank([0.0] * (kernels - 1) + [1.0])
    image = torch.rand(1, 1, side, side).bfloat16()
    torch.set_num_threads(2)
    torch.utils.deterministic.fill_uninitialized_memory = False
    try:
        stack = gkm_ops.gaussian_stack(image.expand(1, channels, side, side), bank)
    finally:
        torch.utils.deterministic.fill_uninitialized_memory = True
        torch.set_num_threads(1)
    assert stack.numel() > LIMIT
    small = gkm_ops.gaussian_stack(image, bank)
    for c in (0, channels - 1):
        assert torch.equal(stack[0, :, c], small[0, :, 0])


def skip_unless_available(gib):
    with open("/proc/meminfo") as lines:
        available = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) / 2**20
    if available < gib:
        pytest.skip(f"{available:.1f} GiB of memory are available, {gib:.1f} are needed")
