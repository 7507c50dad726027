"""What the network does between its convolutions, in passes of our own: against torch in float64."""

from __future__ import annotations

import copy
from contextlib import nullcontext

import pytest
import torch
from conftest import instruction_sets
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from gkm_ops import cpu
from gkm_ops.nn import TripletAttention
from gkm_ops.nn.backbone import Block
from gkm_ops.nn.normalization import normalized_and_rectified
from gkm_ops.nn.plain import kernels_serve
from gkm_ops.nn.recomputation import recomputed

SIZES = [(1, 1), (1, 7), (5, 4), (9, 64), (33, 65), (18, 131)]
TOLERANCE = 2e-6  # of the norm


@pytest.fixture(params=instruction_sets())
def instruction_set(request, monkeypatch):
    monkeypatch.setenv("GKM_OPS_CPU_ISA", request.param)
    reason = cpu.refusal(torch.device("cpu"), torch.float32)
    if reason is not None:
        pytest.skip(reason)


def close(got, want, tolerance=TOLERANCE):
    return got.shape == want.shape and (got - want).norm() <= tolerance * want.norm()


def on_any_number_of_threads(run):
    """What ``run()`` gives, which is the same to the bit on one thread and on three."""
    results = run()
    torch.set_num_threads(3)
    try:
        assert all(map(torch.equal, results, run()))
    finally:
        torch.set_num_threads(1)
    return results


# ---- 7x7 convolutions of few channels ----------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(("channels", "outputs"), [(2, 1), (1, 2), (1, 1)])
def test_thin_convolution(instruction_set, size, channels, outputs):
    x, weight = torch.randn(2, channels, *size), torch.randn(outputs, channels, 7, 7)
    exact = weight.double().requires_grad_()
    want = F.conv2d(x.double(), exact, padding=3)
    cotangent = torch.randn_like(want).float()
    got, gradient = on_any_number_of_threads(
        lambda: (cpu.convolve_thin(x, weight), cpu.convolve_thin_gradient(cotangent, x))
    )
    assert close(got, want)
    assert close(gradient, torch.autograd.grad(want, exact, cotangent.double())[0])


# ---- Batch norm, ReLU and sum ------------------------------------------------------------------------------


def norm_and_tensors(size, channels=3, offset=0.0):
    norm = nn.BatchNorm2d(channels, momentum=0.3)
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
    x = (torch.randn(2, channels, *size) + offset).requires_grad_()
    return norm, x, torch.randn_like(x).requires_grad_()


def as_torch(norm, x, added):
    y = norm(x).relu()
    return y if added is None else y + added


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("with_sum", [True, False])
@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_norm_rectified(instruction_set, size, with_sum, offset):
    norm, x, added = norm_and_tensors(size, offset=offset)
    added = added if with_sum else None
    exact_norm = copy.deepcopy(norm).double()
    exact = [None if tensor is None else tensor.detach().double().requires_grad_() for tensor in (x, added)]
    want = as_torch(exact_norm, *exact)
    cotangent = torch.randn_like(want).float()
    asked, exact_asked = [x, norm.weight, norm.bias], [exact[0], exact_norm.weight, exact_norm.bias]
    if with_sum:
        asked.append(added)
        exact_asked.append(exact[1])
    state = copy.deepcopy(norm.state_dict())

    def run():
        norm.load_state_dict(state)
        y = normalized_and_rectified(norm, x, added)
        return y.detach(), *torch.autograd.grad(y, asked, cotangent)

    got = on_any_number_of_threads(run)
    gradients = torch.autograd.grad(want, exact_asked, cotangent.double())
    tolerance = 2e-5 if offset else TOLERANCE  # numbers of 30 have fewer digits behind the point
    largest = max(gradient.norm() for gradient in gradients)
    assert close(got[0], want, tolerance)
    for gradient, wanted in zip(got[1:], gradients, strict=True):  # of two values per channel that of x is next to none
        assert (gradient - wanted).norm() <= tolerance * torch.maximum(wanted.norm(), largest)
    assert norm.num_batches_tracked == exact_norm.num_batches_tracked == 1
    torch.testing.assert_close(norm.running_mean.double(), exact_norm.running_mean, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(norm.running_var.double(), exact_norm.running_var, rtol=1e-5, atol=1e-6)


def test_norm_rectified_can_be_differentiated_twice():
    norm, x, added = norm_and_tensors((9, 17))
    seconds = []
    for function in (normalized_and_rectified, as_torch):
        tensors = x, norm.weight, norm.bias
        firsts = torch.autograd.grad(function(norm, x, added).square().sum(), tensors, create_graph=True)
        seconds.append(torch.autograd.grad(sum(first.square().sum() for first in firsts), tensors))
    for got, want in zip(*seconds, strict=True):
        assert close(got, want, 1e-4)


@pytest.mark.parametrize("change", [
    lambda norm: norm.double(),
    lambda norm: setattr(norm, "momentum", None),
    lambda norm: norm.__init__(3, affine=False),
    lambda norm: norm.__init__(3, track_running_stats=False),
])  # fmt: skip
def test_other_norms_are_torchs(change):
    norm, x, added = norm_and_tensors((6, 7))
    change(norm)
    if norm.weight is not None:
        x, added = x.to(norm.weight.dtype), added.to(norm.weight.dtype)
    other = copy.deepcopy(norm)
    for _ in range(2):
        assert torch.equal(normalized_and_rectified(norm, x, added), as_torch(other, x, added))
    for name, value in other.state_dict().items():
        assert torch.equal(value, norm.state_dict()[name]), name


def test_one_value_per_channel_is_refused():
    norm, x, _ = norm_and_tensors((1, 1))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        normalized_and_rectified(norm, x[:1], None)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_norm_rectified_and_attention_hide_no_nan(instruction_set, bad):
    norm, x, added = norm_and_tensors((9, 35))
    attention = TripletAttention()
    for place in ((0, 0, 0, 0), (1, 2, 8, 34)):  # the first, the last
        spoilt = x.detach().clone()
        spoilt[place] = bad
        results = []
        for function in (normalized_and_rectified, as_torch):
            tensor = spoilt.clone().requires_grad_()
            y = function(copy.deepcopy(norm), tensor, added)
            results.append((y, *torch.autograd.grad(y.sum(), tensor)))
        for got, want in zip(*results, strict=True):
            assert torch.equal(got.isfinite(), want.isfinite())
        kernels, exact = attention(spoilt), copy.deepcopy(attention).double()(spoilt.double())
        assert torch.equal(kernels.isfinite(), exact.isfinite())


# ---- Triplet attention -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES[1:], ids=str)
@pytest.mark.parametrize("channels", [1, 5])
@pytest.mark.parametrize("training", [True, False])
def test_triplet_attention(instruction_set, size, channels, training):
    attention = TripletAttention().train(training)
    exact_attention = copy.deepcopy(attention).double()
    x = (torch.randn(3, channels, *size) * 2).round().div(2).requires_grad_()  # with many equal maxima
    exact = x.detach().double().requires_grad_()
    want = exact_attention(exact)
    cotangent = torch.randn_like(want).float()

    def run():
        y = attention(x)
        return y.detach(), *torch.autograd.grad(y, [x, *attention.parameters()], cotangent)

    got = run() if training else on_any_number_of_threads(run)  # the gates' norms in training are torch's
    gradients = torch.autograd.grad(want, [exact, *exact_attention.parameters()], cotangent.double())
    largest = max(gradient.norm() for gradient in gradients)
    assert close(got[0], want, 1e-5)
    for gradient, wanted in zip(got[1:], gradients, strict=True):
        assert (gradient - wanted).norm() <= 1e-4 * torch.maximum(wanted.norm(), 1e-2 * largest)
    with torch.no_grad():
        assert torch.equal(attention(x), got[0])


def test_triplet_attention_takes_any_layout_and_float32_alone_goes_through_kernels():
    attention, x = TripletAttention().eval(), torch.randn(2, 4, 9, 17)
    torch.testing.assert_close(attention(x.contiguous(memory_format=torch.channels_last)), attention(x))
    assert kernels_serve(x)
    assert not kernels_serve(x.double())
    with torch.autocast("cpu", torch.bfloat16):
        assert not kernels_serve(x)
        assert attention(x).isfinite().all()


def test_triplet_attention_can_be_differentiated_twice():
    attention = TripletAttention()
    x = torch.randn(2, 4, 9, 17, requires_grad=True)
    exact = x.detach().double().requires_grad_()
    seconds = []
    for net, tensor in ((attention, x), (copy.deepcopy(attention).double(), exact)):
        first = torch.autograd.grad(net(tensor).square().sum(), tensor, create_graph=True)[0]
        seconds.append(torch.autograd.grad(first.square().sum(), tensor)[0])
    assert close(*seconds, 1e-4)


def test_recomputation_changes_no_bit():
    attention = TripletAttention()
    x = torch.randn(2, 4, 9, 17, requires_grad=True)
    gradients = []
    for function in (attention, lambda x: recomputed(attention, x)):
        gradients.append(torch.autograd.grad(function(x).square().sum(), [x, *attention.parameters()]))
    assert all(map(torch.equal, *gradients))


@pytest.mark.parametrize("first", [True, False])
def test_a_mode_may_begin_or_end_before_the_backward_pass(first):
    block, x = Block(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1))), torch.randn(2, 3, 9, 17)
    want = torch.autograd.grad(block(x).square().sum(), list(block.parameters()))
    with FlopCounterMode(display=False) if first else nullcontext():
        loss = block(x).square().sum()
    with nullcontext() if first else FlopCounterMode(display=False):
        got = torch.autograd.grad(loss, list(block.parameters()))
    largest = max(gradient.norm() for gradient in want)
    for gradient, wanted in zip(got, want, strict=True):
        assert (gradient - wanted).norm() <= 1e-4 * torch.maximum(wanted.norm(), 1e-2 * largest)


def test_torch_func_differentiates_by_parameters_alone():
    attention, x = TripletAttention(), torch.randn(2, 4, 9, 17)
    parameters, buffers = dict(attention.named_parameters()), dict(attention.named_buffers())

    def loss(parameters):
        state = parameters, {name: buffer.clone() for name, buffer in buffers.items()}
        return torch.func.functional_call(attention, state, x).square().sum()

    got = torch.func.grad(loss)(parameters)
    for gradient, want in zip(got.values(), torch.autograd.grad(loss(parameters), parameters.values()), strict=True):
        torch.testing.assert_close(gradient, want, rtol=1e-3, atol=1e-4)
