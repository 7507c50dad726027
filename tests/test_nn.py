"""The network's modules: their modes, checkpoints as they come, images of any size, and what they refuse."""

from __future__ import annotations

import copy
import io

import pytest
import torch

from gkm_ops import GaussianBank, GKMNet, gaussian_stack, gkm_blur
from gkm_ops.nn import Backbone, ConvLSTMCell, GaussianConvolution, ScaleRecurrentAttention, TripletAttention, pyramid
from gkm_ops.nn.backbone import ResidualBlock

PARAMETERS, ENTRIES = 1_409_131, 240


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return GKMNet().eval()


@pytest.mark.parametrize("release", ["v1", "v2"])
def test_size_of_the_network(release):
    net = GKMNet(release)
    assert sum(parameter.numel() for parameter in net.parameters()) == PARAMETERS
    assert len(net.state_dict()) == ENTRIES


@pytest.mark.parametrize("wrap", [
    lambda state: state,
    lambda state: {f"module.{name}": value for name, value in state.items()},
    lambda state: {"state_dict": state, "epoch": 3},
    lambda state: {"model": {f"module.{name}": value for name, value in state.items()}, "optimizer": {}},
    lambda state: {f"_orig_mod.{name}": value for name, value in state.items()},
    lambda state: {f"module._orig_mod.{name}": value for name, value in state.items()},
    lambda state: {f"_orig_mod.module.{name}": value for name, value in state.items()},
])  # fmt: skip
def test_checkpoints_load_as_they_come(net, wrap):
    file = io.BytesIO()
    torch.save(wrap(net.state_dict()), file)
    file.seek(0)
    other = GKMNet()
    other.load_state_dict(torch.load(file, weights_only=True))
    for name, value in net.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_a_checkpoint_without_an_entry_is_refused(net):
    state = dict(net.state_dict())
    del state["SumLayer.conv.bias"]
    with pytest.raises(RuntimeError, match=r"SumLayer.conv.bias"):
        GKMNet().load_state_dict(state)


@pytest.mark.parametrize("release", ["v1", "v2"])
@pytest.mark.parametrize("mode", ["TG", "TR"])
def test_trainable_modes(release, mode):
    torch.manual_seed(1)
    fixed, trainable = GaussianConvolution(release), GaussianConvolution(release, mode)
    x = torch.rand(1, 3, 24, 28)
    assert "bank.taps" in trainable.state_dict()
    assert not fixed.state_dict()
    assert trainable.bank.taps.shape[:2] == (3, 22)
    torch.testing.assert_close(trainable.bank.taps.sum(-1), torch.ones(3, 22))
    same = torch.allclose(trainable(x), fixed(x), atol=1e-6)
    assert same == (mode == "TG")
    trainable(x).square().sum().backward()
    assert trainable.bank.taps.grad.abs().sum() > 0


@pytest.mark.parametrize("release", ["v1", "v2"])
@pytest.mark.parametrize("mode", ["FG", "TG", "TR"])
def test_the_bank_is_made_on_the_default_device(release, mode):
    with torch.device("meta"):
        net = GKMNet(release, mode)
    assert {value.device.type for value in (*net.parameters(), *net.buffers())} == {"meta"}
    assert isinstance(net.gcm.bank.taps, torch.nn.Parameter) == (mode != "FG")
    torch.manual_seed(0)
    state = GKMNet(release, mode).state_dict()
    net.to_empty(device="cpu").load_state_dict(state)
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("release", ["v1", "v2"])
def test_blend_is_the_weighted_sum_of_the_stack(release):
    gcm = GaussianConvolution(release)
    x, coeffs, weight = torch.rand(2, 3, 24, 28), torch.randn(2, 22, 24, 28), torch.randn(3, 66)
    maps = coeffs.repeat(1, 3, 1, 1) if release == "v1" else coeffs.repeat_interleave(3, 1)
    want = torch.einsum("ok,bkhw->bohw", weight, gcm(x) * maps)
    torch.testing.assert_close(gcm.blend(x, coeffs, weight), want, rtol=1e-4, atol=1e-4)


def test_both_releases_see_the_bank_they_were_trained_with():
    x = torch.rand(1, 3, 24, 28)
    v2 = GaussianConvolution("v2")(x)
    torch.testing.assert_close(v2[:, 0:3], x)
    torch.testing.assert_close(v2, gaussian_stack(x, GaussianBank.gkmnet()).flatten(1, 2))
    v1 = GaussianConvolution("v1")(x)
    torch.testing.assert_close(v1[:, 0], x[:, 0])  # channel 22 c + j: red's first three are the identity
    torch.testing.assert_close(v1[:, 1], x[:, 0])
    last = GaussianBank.gkmnet()
    widest = gkm_blur(x, torch.eye(22)[21].view(1, 22, 1, 1).expand(1, 22, 24, 28), last, padding_mode="zeros")
    torch.testing.assert_close(v1[:, 65], widest[:, 2])


@pytest.mark.parametrize("size", [(1, 1), (17, 50), (48, 48), (70, 90)])
def test_deblur_takes_any_size(net, size):
    image = torch.rand(3, *size)
    got = net.deblur(image)
    assert got.shape == image.shape
    assert got.isfinite().all()
    torch.testing.assert_close(net.deblur(image.unsqueeze(0))[0], got, rtol=1e-4, atol=1e-5)


def test_deblur_pads_with_black_and_crops(net):
    image = torch.rand(1, 3, 60, 77)
    padded = torch.zeros(1, 3, 64, 80)
    padded[:, :, 2:62, 1:78] = image
    with torch.no_grad():
        want = net(*pyramid(padded))[0][:, :, 2:62, 1:78]
    torch.testing.assert_close(net.deblur(image), want)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_modes_without_gradients(net, mode):
    image = torch.rand(3, 112, 128)  # large enough for transforms of tiles at every scale
    with mode():
        got = net.deblur(image)
    torch.testing.assert_close(got, net.deblur(image))


def test_a_new_network_starts_near_the_identity():
    torch.manual_seed(0)
    net, image = GKMNet().train(), torch.rand(2, 3, 64, 64)
    for got, want in zip(net(*pyramid(image)), pyramid(image), strict=True):
        assert (got - want).square().mean() < 0.1 * want.square().mean()


@pytest.mark.parametrize("module", [
    lambda x: ConvLSTMCell(32, 44, 5)(x), lambda x: ScaleRecurrentAttention(32, 44)(x), lambda x: ResidualBlock(32)(x),
])  # fmt: skip
@pytest.mark.parametrize("channels", [16, 48, 200])
@pytest.mark.parametrize("grad", [True, False])
def test_features_of_other_widths_are_refused(module, channels, grad):
    with torch.set_grad_enabled(grad), pytest.raises(RuntimeError, match=f"to have 32 channels, but got {channels}"):
        module(torch.rand(1, channels, 32, 32))


def test_each_norm_goes_by_its_own_mode(net):
    net = copy.deepcopy(net)
    norms = [module for module in net.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.train()
    with torch.no_grad():
        net(*pyramid(torch.rand(1, 3, 48, 64)))
    assert all(norm.num_batches_tracked > 0 for norm in norms)
    net.train()
    for norm in norms:
        norm.eval()
    net.deblur(torch.rand(3, 48, 48))
    assert net.training
    assert not any(norm.training for norm in norms)


def test_deblur_evaluates_and_leaves_the_mode_alone(net):
    training = copy.deepcopy(net).train()
    before = copy.deepcopy(training.state_dict())
    image = torch.rand(3, 48, 48)
    torch.testing.assert_close(training.deblur(image), net.deblur(image))
    assert training.training
    for name, value in training.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (torch.rand(1, 48, 48), ValueError, r"image: got shape \(1, 48, 48\)"),
        (torch.rand(48, 48), ValueError, r"image: got shape \(48, 48\)"),
        (torch.rand(3, 0, 48), ValueError, r"image: got shape"),
        (torch.full((3, 48, 48), float("nan")), ValueError, "image: got NaN"),
        (torch.zeros(3, 48, 48, dtype=torch.uint8), TypeError, r"image: got a torch.uint8 tensor"),
        ([1.0], TypeError, "image: got a list"),
    ],
)
def test_images_that_cannot_be_deblurred_are_refused(net, image, error, message):
    with pytest.raises(error, match=message):
        net.deblur(image)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((1, 3, 50, 64), (1, 3, 25, 32), (1, 3, 12, 16)), "y1: got shape"),
        (((1, 3, 32, 64), (1, 3, 16, 32), (1, 3, 8, 16)), r"y1: got shape .* multiples of 16, 48 or more"),
        (((1, 3, 64, 64), (1, 3, 32, 16), (1, 3, 16, 16)), "y2: got shape"),
        (((1, 3, 64, 64), (1, 3, 32, 32), (2, 3, 16, 16)), "y3: got shape"),
    ],
)
def test_scales_that_do_not_fit_are_refused(net, shapes, message):
    with pytest.raises(ValueError, match=message):
        net(*map(torch.rand, shapes))


@pytest.mark.parametrize(("release", "mode", "name"), [("v3", "FG", "release"), ("v2", "XX", "mode")])
def test_unknown_variants_are_refused(release, mode, name):
    with pytest.raises(ValueError, match=name):
        GKMNet(release, mode)


def test_triplet_attention_is_the_mean_of_three_gated_copies():
    attention = TripletAttention().eval()
    x = torch.randn(2, 5, 9, 7)

    def gated(gate, maps):
        pooled = torch.stack((maps.max(1).values, maps.mean(1)), 1)
        return maps * gate.conv.bn(gate.conv.conv(pooled)).sigmoid()

    over_cw = gated(attention.cw, x.transpose(1, 2)).transpose(1, 2)
    over_hc = gated(attention.hc, x.transpose(1, 3)).transpose(1, 3)
    torch.testing.assert_close(attention(x), (gated(attention.hw, x) + over_cw + over_hc) / 3)


def test_no_state_is_a_state_of_zeros():
    cell, attention = ConvLSTMCell(4, 6, 5), ScaleRecurrentAttention(4, 6).eval()
    x = torch.randn(2, 4, 8, 12)
    zeros = (torch.zeros(2, 6, 8, 12), torch.zeros(2, 6, 8, 12))
    for got, want in zip(cell(x), cell(x, zeros), strict=True):
        torch.testing.assert_close(got, want)
    zeros = (torch.zeros(2, 6, 2, 3), torch.zeros(2, 6, 2, 3))  # of the coarser scale
    torch.testing.assert_close(attention(x)[0], attention(x, zeros)[0])


def test_a_memory_of_another_size_is_refused():
    with pytest.raises(ValueError, match="size: got 4, wanted an odd number"):
        ConvLSTMCell(3, 4, 4)


def test_the_backbone_keeps_the_size():
    assert Backbone()(torch.rand(2, 3, 20, 12)).shape == (2, 32, 20, 12)
