"""The network's convolutions, whichever way they take, and what is made again in the backward pass."""

from __future__ import annotations

import pytest
import torch
from conftest import instruction_sets
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from gkm_ops import GKMNet, cpu
from gkm_ops.nn import convolution as module
from gkm_ops.nn import pyramid
from gkm_ops.nn.convolution import Geometry, convolve
from gkm_ops.nn.layers import ConvNormReLU
from gkm_ops.nn.recomputation import recomputed


def operands(batch, channels, outputs, size, height, width, transposed=False):
    x = torch.randn(batch, channels, height, width, requires_grad=True)
    shape = (channels, outputs) if transposed else (outputs, channels)
    weight = (torch.randn(*shape, size, size) / (channels * size**2) ** 0.5).requires_grad_()
    return x, weight, torch.randn(outputs, requires_grad=True)


CASES = {
    "3x3": (operands(2, 32, 44, 3, 64, 70), Geometry(padding=1)),
    "5x5": (operands(1, 76, 40, 5, 41, 64), Geometry(padding=2)),
    "few channels": (operands(2, 3, 32, 3, 64, 64), Geometry(padding=1)),
    "strided": (operands(2, 32, 64, 3, 64, 64), Geometry(2, 1)),
    "transposed": (operands(2, 64, 32, 2, 37, 20, transposed=True), Geometry(2, transposed=True)),
}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("tensors", "geometry"), CASES.values(), ids=CASES)
def test_results_and_gradients_are_those_of_torch_in_float64(tensors, geometry, threads):
    torch.set_num_threads(threads)
    try:
        got = convolve(*tensors, geometry)
        cotangent = torch.randn_like(got)
        gradients = torch.autograd.grad(got, tensors, cotangent)
    finally:
        torch.set_num_threads(1)
    exact = [tensor.double() for tensor in tensors]
    plain = F.conv_transpose2d if geometry.transposed else F.conv2d
    want = plain(*exact, geometry.stride, geometry.padding)
    # Winograd's transforms round ten times as coarsely as sums: to 8e-6 of the largest value, 2e-6 of the norm.
    assert (got - want).abs().max() < 1e-5 * want.abs().max()
    assert (got - want).norm() < 3e-6 * want.norm()
    for gradient, exact_gradient in zip(gradients, torch.autograd.grad(want, tensors, cotangent.double()), strict=True):
        assert (gradient - exact_gradient).norm() < 1e-4 * exact_gradient.norm()


def test_large_convolutions_go_through_transforms_and_others_do_not():
    way = module._by_winograd
    taken = {name: way(*tensors, geometry) for name, (tensors, geometry) in CASES.items()}
    assert [name for name in taken if taken[name]] == ["3x3", "5x5"]
    for case in ("3x3", "5x5"):
        (x, weight, _), geometry = CASES[case]
        assert not way(x.double(), weight.double(), None, geometry)
        assert not way(x[:, :, :8, :8], weight, None, geometry)
        with torch.autocast("cpu", torch.bfloat16):
            assert not way(x, weight, None, geometry)


@pytest.mark.parametrize("instruction_set", instruction_sets())
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 4), (9, 64), (13, 65), (8, 131), (6, 300)], ids=str)
@pytest.mark.parametrize(("channels", "outputs"), [(1, 1), (3, 13), (20, 24)])
@pytest.mark.parametrize("kernel", [3, 5])
def test_winograd_on_every_instruction_set(instruction_set, size, channels, outputs, kernel, monkeypatch):
    monkeypatch.setenv("GKM_OPS_CPU_ISA", instruction_set)
    reason = cpu.refusal(torch.device("cpu"), torch.float32)
    if reason is not None:
        pytest.skip(reason)
    x, weight, bias = (tensor.detach() for tensor in operands(2, channels, outputs, kernel, *size))
    for offset in (bias, None):
        want = F.conv2d(x.double(), weight.double(), None if offset is None else offset.double(), padding=kernel // 2)
        got = cpu.convolve(x, weight, offset)
        # A result of few values may be small by chance; the transforms' rounding goes by weights and pixels.
        usual = (weight.square().sum((1, 2, 3)) * x.square().mean()).sqrt()
        assert (got - want).abs().max() < 1e-5 * max(want.abs().max(), usual.max())
        assert (got - want).norm() < 3e-6 * max(want.norm(), usual.norm() * (want.numel() / outputs) ** 0.5)
    added = torch.randn_like(got)
    assert torch.equal(cpu.convolve(x, weight, bias, True, added), cpu.convolve(x, weight, bias).relu() + added)
    channels_last = x.contiguous(memory_format=torch.channels_last)
    assert torch.equal(cpu.convolve(channels_last, weight, bias), cpu.convolve(x, weight, bias))
    assert torch.equal(cpu.convolve(x[1:], weight, bias)[0], cpu.convolve(x, weight, bias)[1])


@pytest.mark.parametrize("instruction_set", instruction_sets())
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 4), (9, 64), (13, 65), (8, 131), (6, 300)], ids=str)
@pytest.mark.parametrize(("channels", "outputs"), [(1, 1), (3, 13), (20, 24), (33, 5)])
@pytest.mark.parametrize("kernel", [3, 5])
def test_gradients_by_weights_on_every_instruction_set(instruction_set, size, channels, outputs, kernel, monkeypatch):
    monkeypatch.setenv("GKM_OPS_CPU_ISA", instruction_set)
    reason = cpu.refusal(torch.device("cpu"), torch.float32)
    if reason is not None:
        pytest.skip(reason)
    x, weight, bias = operands(2, channels, outputs, kernel, *size)
    y = F.conv2d(x.double(), weight.double(), bias.double(), padding=kernel // 2)
    cotangent = torch.randn_like(y).float()
    x = x.detach()
    got = cpu.convolve_gradient(cotangent, x, kernel)
    for gradient, want in zip(got, torch.autograd.grad(y, (weight, bias), cotangent.double()), strict=True):
        assert gradient.shape == want.shape
        assert (gradient - want).norm() < 1e-5 * want.norm()
    channels_last = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (cotangent, x))
    for gradient, want in zip(cpu.convolve_gradient(*channels_last, kernel), got, strict=True):
        assert torch.equal(gradient, want)


@pytest.mark.parametrize("shape", [(0, 16, 8, 8), (1, 16, 0, 8), (1, 16, 8, 0)], ids=str)
def test_winograd_of_no_pixels(shape):
    assert cpu.convolve(torch.ones(shape), torch.ones(20, 16, 3, 3), None).shape == (shape[0], 20, *shape[2:])
    weight, bias = cpu.convolve_gradient(torch.ones(shape[0], 20, *shape[2:]), torch.ones(shape), 3)
    assert torch.equal(weight, torch.zeros(20, 16, 3, 3))
    assert torch.equal(bias, torch.zeros(20))


@pytest.mark.parametrize("case", ["3x3", "5x5"])
def test_no_images_have_no_gradients(case):
    (x, weight, bias), geometry = CASES[case]
    result = convolve(x[:0], weight, bias, geometry)
    for gradient in torch.autograd.grad(result.sum(), (weight, bias)):
        assert not gradient.any()


@pytest.mark.parametrize("case", ["3x3", "5x5"])
def test_large_convolutions_can_be_differentiated_twice(case):
    tensors, geometry = CASES[case]
    seconds = []
    for convolution in (lambda: convolve(*tensors, geometry), lambda: F.conv2d(*tensors, 1, geometry.padding)):
        firsts = torch.autograd.grad(convolution().square().sum(), tensors, create_graph=True)
        seconds.append(torch.autograd.grad(sum(first.square().sum() for first in firsts), tensors))
    for got, want in zip(*seconds, strict=True):
        assert (got - want).norm() < 1e-4 * want.norm()


@pytest.mark.parametrize("case", ["3x3", "5x5"])
def test_flops_are_counted_as_torch_counts_a_convolution(case):
    (x, weight, bias), geometry = CASES[case]
    counts = []
    for convolution in (lambda: convolve(x, weight, bias, geometry), lambda: F.conv2d(x, weight, bias, 1, geometry[1])):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            convolution()
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


def test_torch_func_takes_the_plain_way():
    (x, weight, bias), geometry = CASES["3x3"]
    tensors = [tensor.detach() for tensor in (x, weight, bias)]
    batched = torch.func.vmap(lambda image: convolve(image, *tensors[1:], geometry))(tensors[0].unsqueeze(1))
    torch.testing.assert_close(batched.squeeze(1), F.conv2d(*tensors, padding=1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", ["3x3", "5x5"])
def test_equal_inputs_give_equal_bits_on_any_number_of_threads(case):
    tensors, geometry = CASES[case]

    def run():
        result = convolve(*tensors, geometry)
        return result, *torch.autograd.grad(result.square().sum(), tensors)

    want = run()
    torch.set_num_threads(3)
    try:
        assert all(map(torch.equal, run(), want))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("transposed", [False, True])
def test_autocast_gives_what_torch_gives(transposed):
    (x, weight, bias), geometry = CASES["transposed" if transposed else "3x3"]
    with torch.autocast("cpu", torch.bfloat16):
        got = convolve(x, weight, bias, geometry)
        plain = F.conv_transpose2d if transposed else F.conv2d
        want = plain(x, weight, bias, geometry.stride, geometry.padding)
    assert got.dtype == torch.bfloat16
    assert torch.equal(got, want)
    gradients = torch.autograd.grad(got.float().square().sum(), (x, weight, bias))
    assert [gradient.dtype for gradient in gradients] == [torch.float32] * 3


# ---- Making again ------------------------------------------------------------------------------------------


def test_recomputed_function_runs_twice_and_convolves_once(monkeypatch):
    runs, made = [], []
    make = module._made
    monkeypatch.setattr(module, "_made", lambda *args: made.append(args) or make(*args))
    (x, weight, bias), geometry = CASES["strided"]

    def function(x):
        runs.append(x)
        return convolve(x.sin(), weight, bias, geometry).tanh()

    recomputed(function, x).sum().backward()
    assert len(runs) == 2
    assert len(made) == 1
    with torch.no_grad():
        recomputed(function, x)
    assert len(runs) == 3


def test_gradients_are_those_without_recomputation_and_statistics_move_once():
    layer = ConvNormReLU(nn.Conv2d(3, 8, 3, padding=1))
    again = ConvNormReLU(nn.Conv2d(3, 8, 3, padding=1))
    again.load_state_dict(layer.state_dict())
    x = torch.randn(2, 3, 16, 16)
    layer(x).square().sum().backward()
    recomputed(again, x).square().sum().backward()
    assert again[1].num_batches_tracked == 1
    for name, value in layer.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    for parameter, other in zip(layer.parameters(), again.parameters(), strict=True):
        assert torch.equal(parameter.grad, other.grad)


def test_network_can_be_differentiated_twice_through_one_forward_pass():
    net = GKMNet().train()
    loss = sum(x.square().mean() for x in net(*pyramid(torch.rand(1, 3, 48, 48))))
    first = torch.autograd.grad(loss, net.in_block.conv[0].weight, retain_graph=True)[0]
    second = torch.autograd.grad(loss, net.in_block.conv[0].weight)[0]
    assert torch.equal(first, second)


@pytest.mark.parametrize("training", [True, False])
def test_the_network_compiles_as_a_whole(training):
    net, images = GKMNet().train(training), pyramid(torch.rand(1, 3, 48, 64))
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            for got, want in zip(compiled(*images), net(*images), strict=True):
                torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_transforms_and_batched_gradients_take_the_network():
    net, images = GKMNet().eval(), pyramid(torch.rand(2, 3, 48, 64))
    parameters = {name: parameter.detach() for name, parameter in net.named_parameters()}

    def loss(parameters, *images):
        estimate = torch.func.functional_call(net, parameters, tuple(image.unsqueeze(0) for image in images))[0]
        return estimate.square().mean()

    losses = torch.func.vmap(loss, in_dims=(None, 0, 0, 0))
    want = torch.stack([loss(parameters, *image) for image in zip(*images, strict=True)])
    torch.testing.assert_close(losses(parameters, *images), want)
    with torch.no_grad():
        torch.testing.assert_close(losses(parameters, *images), want)

    gradients = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0, 0))(parameters, *images)
    direction = {name: torch.randn_like(parameter) for name, parameter in parameters.items()}
    first = [image[0] for image in images]
    _, slope = torch.func.jvp(lambda p: loss(p, *first), (parameters,), (direction,))
    by_gradient = sum((gradients[name][0] * direction[name]).sum() for name in parameters)
    torch.testing.assert_close(slope, by_gradient, rtol=1e-3, atol=1e-5)

    x = torch.rand(1, 32, 20, 20, requires_grad=True)
    means = net.conv_block1_1(x).mean((0, 2, 3))[:3]
    batched = torch.autograd.grad(means, x, torch.eye(3), is_grads_batched=True, retain_graph=True)[0]
    for got, mean in zip(batched, means, strict=True):
        torch.testing.assert_close(got, torch.autograd.grad(mean, x, retain_graph=True)[0], rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("training", [True, False])
def test_torch_func_differentiates_the_network(training):
    net = GKMNet().train(training)
    images = pyramid(torch.rand(1, 3, 48, 64))

    def loss(parameters, buffers):  # the norms' statistics are written to: torch.func wants them as arguments
        return sum(x.square().mean() for x in torch.func.functional_call(net, (parameters, buffers), images))

    parameters, buffers = dict(net.named_parameters()), {name: b.clone() for name, b in net.named_buffers()}
    got = torch.func.grad(loss)(parameters, {name: b.clone() for name, b in buffers.items()})
    want = torch.autograd.grad(loss(parameters, buffers), list(parameters.values()))
    largest = max(gradient.norm() for gradient in want)
    for (name, gradient), wanted in zip(got.items(), want, strict=True):
        assert (gradient - wanted).norm() < 1e-2 * torch.maximum(wanted.norm(), 1e-3 * largest), name
