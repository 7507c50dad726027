"""GaussianBank and the layer over it: values, refusals, moves, state, copies."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch.nn.utils import prune

import gkm_ops
from gkm_ops import GaussianBank
from gkm_ops.nn import GaussianMixtureBlur


def banks():
    return {
        "shared": GaussianBank([0.0, 0.5, 2.0]),
        "per_colour": GaussianBank([[0.0, 1.0], [2.0, 0.5]]),
        "from_taps": GaussianBank.from_taps(torch.rand(2, 3, 7), [0, 1, 2, 3, 3, 1]),
        "gkmnet": GaussianBank.gkmnet(),
    }


def test_taps_are_the_sampled_gaussian():
    bank = GaussianBank([0.0, 0.7, 2.0], sizes=[1, 3, 9])
    offset = torch.arange(-4, 5, dtype=torch.float64)
    want = torch.zeros(3, 9, dtype=torch.float64)
    want[0, 4] = 1
    want[1, 3:6] = torch.exp(-(offset[3:6] ** 2) / (2 * 0.7**2))
    want[2] = torch.exp(-(offset**2) / (2 * 2.0**2))
    torch.testing.assert_close(bank.taps, want / want.sum(1, keepdim=True), rtol=1e-15, atol=0)
    assert bank.radii == (0, 1, 4)
    assert bank.num_kernels == 3
    assert bank.num_channels is None


def test_default_sizes_reach_three_sigmas():
    assert GaussianBank([0.0, 0.3, 1.0, 1.1, 2.5]).radii == (0, 1, 3, 4, 8)


def test_a_bank_per_colour():
    bank = GaussianBank([[0.0, 1.0], [2.0, 0.5]])
    assert bank.taps.shape == (2, 2, 13)
    assert bank.radii == (0, 3, 6, 2)
    assert (bank.num_channels, bank.num_kernels) == (2, 2)
    assert torch.equal(bank.taps[1, 0], GaussianBank([2.0]).taps[0])


def test_a_tensor_of_sigmas():
    assert torch.equal(GaussianBank(torch.tensor([0.5, 1.0])).taps, GaussianBank([0.5, 1.0]).taps)


def test_gkmnet():
    """22 kernels: the identity, then sigma = 0.25 m, of 3 x 3, then 2 floor(m / 2) + 1 pixels."""
    bank = GaussianBank.gkmnet()
    assert bank.radii == (0, 1, *(m // 2 for m in range(2, 22)))
    for m in range(1, 22):
        offset = torch.arange(-bank.radii[m], bank.radii[m] + 1, dtype=torch.float64)
        weights = torch.exp(-(offset**2) / (2 * (0.25 * m) ** 2))
        inside = bank.taps[m, 10 - bank.radii[m] : 11 + bank.radii[m]]
        torch.testing.assert_close(inside, weights / weights.sum(), rtol=1e-14, atol=0)
    first = GaussianBank.gkmnet("v1")
    assert first.taps.shape[:2] == (3, 22)
    for c in range(3):
        for j in range(22):
            assert torch.equal(first.taps[c, j], bank.taps[(22 * c + j) // 3])
            assert first.radii[22 * c + j] == bank.radii[(22 * c + j) // 3]


def test_from_taps_drops_what_lies_beyond_the_radii():
    taps = torch.arange(1.0, 11.0).reshape(2, 5)
    bank = GaussianBank.from_taps(taps, [1, 2])
    assert bank.radii == (1, 2)
    assert bank.taps.tolist() == [[0, 2, 3, 4, 0], [6, 7, 8, 9, 10]]
    assert GaussianBank.from_taps(taps).radii == (2, 2)


def test_what_numbers_come_in():
    of_tensors = GaussianBank(torch.tensor([[1.0, 2.0], [2.0, 3.0]]), torch.tensor([[3, 5], [5, 7]]))
    assert (of_tensors.num_channels, of_tensors.radii) == (2, (1, 2, 2, 3))
    assert GaussianBank([1.0], sizes=[np.int64(3)]).radii == (1,)
    assert GaussianBank.from_taps(torch.ones(2, 3), torch.tensor([0, 1])).radii == (0, 1)


def test_a_bank_made_on_meta_can_be_given_memory():
    with torch.device("meta"):
        layer = GaussianMixtureBlur(GaussianBank.gkmnet(), (3, 3))
    assert torch.equal(layer.to_empty(device="cpu").bank.taps, GaussianBank.gkmnet().taps)


REFUSALS = {
    "negative sigma": (ValueError, "sigmas: got -1.0", lambda: GaussianBank([-1.0])),
    "NaN": (ValueError, "sigmas: got nan", lambda: GaussianBank([float("nan")])),
    "inf": (ValueError, "sigmas: got inf", lambda: GaussianBank([1.0, float("inf")])),
    "sigma beyond any image": (ValueError, "sigmas: got 1e+308", lambda: GaussianBank([1e308])),
    "a number among rows": (TypeError, "sigmas: got", lambda: GaussianBank([[1.0, 2.0], 3.0])),
    "sizes per colour of one bank": (ValueError, "sizes: got", lambda: GaussianBank([1.0, 2.0], sizes=[[3, 3]])),
    "radii as a number": (TypeError, "radii: got a int", lambda: GaussianBank.from_taps(torch.ones(1, 3), 1)),
    "even size": (ValueError, "sizes: got 4", lambda: GaussianBank([1.0], sizes=[4])),
    "zero size": (ValueError, "sizes: got 0", lambda: GaussianBank([1.0], sizes=[0])),
    "fractional size": (ValueError, "sizes: got 3.0", lambda: GaussianBank([1.0], sizes=[3.0])),
    "number of sizes": (ValueError, "sizes: got", lambda: GaussianBank([1.0], sizes=[3, 3])),
    "nesting of sizes": (ValueError, "sizes: got", lambda: GaussianBank([1.0, 1.0], sizes=[[3], [3]])),
    "no sigmas": (ValueError, "sigmas: got", lambda: GaussianBank([])),
    "ragged sigmas": (ValueError, "sigmas: got rows of [1, 2]", lambda: GaussianBank([[1.0], [1.0, 2.0]])),
    "a number": (TypeError, "sigmas: got a float", lambda: GaussianBank(1.0)),
    "a word": (TypeError, "sigmas: got a str", lambda: GaussianBank("1.0")),
    "a list of words": (TypeError, "sigmas: got", lambda: GaussianBank(["1.0"])),
    "sizes as a number": (TypeError, "sizes: got a int", lambda: GaussianBank([1.0], sizes=3)),
    "release": (ValueError, "release: got 'v3'", lambda: GaussianBank.gkmnet("v3")),
    "taps as a list": (TypeError, "taps: got a list", lambda: GaussianBank.from_taps([[1.0]])),
    "integer taps": (TypeError, "taps: got a torch.int64", lambda: GaussianBank.from_taps(torch.ones(1, 3).long())),
    "rank of taps": (ValueError, "taps: got shape (3,)", lambda: GaussianBank.from_taps(torch.ones(3))),
    "even taps": (ValueError, "taps: got shape (1, 4)", lambda: GaussianBank.from_taps(torch.ones(1, 4))),
    "no taps": (ValueError, "taps: got shape (0, 3)", lambda: GaussianBank.from_taps(torch.ones(0, 3))),
    "NaN taps": (ValueError, "taps: got NaN", lambda: GaussianBank.from_taps(torch.tensor([[torch.nan]]))),
    "radius beyond the taps": (ValueError, "radii: got [2]", lambda: GaussianBank.from_taps(torch.ones(1, 3), [2])),
    "negative radius": (ValueError, "radii: got [-1]", lambda: GaussianBank.from_taps(torch.ones(1, 3), [-1])),
    "number of radii": (ValueError, "radii: got [1, 1]", lambda: GaussianBank.from_taps(torch.ones(1, 3), [1, 1])),
    "fractional radius": (ValueError, "radii: got [0.5]", lambda: GaussianBank.from_taps(torch.ones(1, 3), [0.5])),
}


@pytest.mark.parametrize(("error", "message", "function"), REFUSALS.values(), ids=REFUSALS)
def test_refusals_name_the_argument(error, message, function):
    with pytest.raises(error) as raised:
        function()
    assert str(raised.value).startswith(message)
    assert "wanted" in str(raised.value)


@pytest.mark.parametrize("name", banks())
def test_constant_taps_stay_float64_and_out_of_the_state(name):
    bank = banks()[name]
    assert bank.taps.dtype == torch.float64
    assert bank.state_dict() == {}
    assert list(bank.parameters()) == []
    before = bank.taps.clone()
    for moved in (bank.half(), bank.to(torch.bfloat16), bank.float(), bank.double()):
        assert torch.equal(moved.taps, before)
        assert moved.taps.dtype == torch.float64


@pytest.mark.parametrize("name", banks())
def test_taps_follow_the_device(name):
    bank = banks()[name]
    before = bank.taps.clone()
    layer = GaussianMixtureBlur(bank)
    layer.to("meta")
    assert bank.taps.device.type == "meta"
    assert bank.taps.dtype == torch.float64
    layer.to_empty(device="cpu")  # as deferred initialisation does
    assert torch.equal(bank.taps, before)


@pytest.mark.parametrize("name", banks())
def test_constant_taps_are_put_in_place_only_where_they_change(name):
    bank = banks()[name]
    want = bank.taps.clone()
    assert bank.share_memory().taps.is_shared()
    for moved in (bank.to("cpu"), bank.float(), bank.to("cpu")):
        moved.taps.zero_()  # which must not reach what the next change restores
    assert torch.equal(bank.float().taps, want)


@pytest.mark.parametrize(
    "reparametrize",
    [torch.nn.utils.weight_norm, lambda bank, name: prune.l1_unstructured(bank, name, 1)],
    ids=["weight_norm", "prune"],
)
def test_trainable_taps_can_be_made_of_other_parameters(reparametrize):
    bank = GaussianBank([0.0, 1.0], trainable=True)
    reparametrize(bank, "taps")
    assert all(parameter.dtype == torch.float64 for parameter in bank.to("cpu").double().parameters())
    assert "trainable=True" in repr(bank)


def test_taps_of_other_sizes_are_not_loaded():
    bank = GaussianBank([1.0, 2.0], sizes=[3, 9], trainable=True)
    GaussianBank([3.0, 4.0], sizes=[3, 9], trainable=True).load_state_dict(bank.state_dict())
    with pytest.raises(RuntimeError, match=r"taps: got some beyond the radii of the bank's kernels, \(4, 1\)"):
        GaussianBank([2.0, 1.0], sizes=[9, 3], trainable=True).load_state_dict(bank.state_dict())


def test_trainable_taps_are_a_parameter():
    bank = GaussianBank([0.0, 1.0], trainable=True)
    assert bank.taps.dtype == torch.float32
    assert [name for name, _ in bank.named_parameters()] == ["taps"]
    assert list(bank.state_dict()) == ["taps"]
    assert bank.double().taps.dtype == torch.float64
    other = GaussianBank([1.0, 2.0], sizes=[1, 7], trainable=True)
    other.load_state_dict(bank.state_dict())
    assert torch.equal(other.taps, bank.taps.float())


def copies(module):
    return [copy.deepcopy(module), pickle.loads(pickle.dumps(module))]


@pytest.mark.parametrize("trainable", [False, True])
def test_copies_of_a_bank(trainable):
    bank = GaussianBank([0.0, 1.0, 1.5], trainable=trainable)
    for other in copies(bank):
        assert torch.equal(other.taps, bank.taps)
        assert other.taps.data_ptr() != bank.taps.data_ptr()
        assert other.radii == bank.radii
        assert isinstance(other.taps, torch.nn.Parameter) == trainable
        assert torch.equal(other.half().double().taps.detach().cpu(), bank.taps) or trainable


def test_copies_of_a_layer():
    layer = GaussianMixtureBlur(GaussianBank([0.0, 1.0]), (3, 2), padding_mode="replicate")
    x, coeffs = torch.rand(1, 3, 9, 9), torch.rand(1, 2, 9, 9)
    for other in copies(layer):
        assert torch.equal(other(x, coeffs), layer(x, coeffs))


def test_layer_is_the_function():
    bank = GaussianBank([0.0, 1.0])
    x, coeffs = torch.rand(1, 3, 9, 9), torch.rand(1, 2, 9, 9)
    plain = GaussianMixtureBlur(bank, padding_mode="zeros")
    assert plain.state_dict() == {}
    assert torch.equal(plain(x, coeffs), gkm_ops.gkm_blur(x, coeffs, bank, padding_mode="zeros"))
    mixed = GaussianMixtureBlur(bank, (3, 4))
    assert list(mixed.state_dict()) == ["mix"]
    assert mixed(x, coeffs).shape == (1, 4, 9, 9)
    torch.testing.assert_close(mixed(x, coeffs)[:, :3], gkm_ops.gkm_blur(x, coeffs, bank))  # starts at the identity
    mixed(x, coeffs).sum().backward()
    assert mixed.mix.grad.shape == (2, 4, 3)


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [(TypeError, "bank: got a list", ([1.0],)), (ValueError, "padding_mode: got 'same'", (GaussianBank([1.0]), None))],
)
def test_a_layer_refuses_what_it_could_not_run_with(error, message, arguments):
    with pytest.raises(error, match=message):
        GaussianMixtureBlur(*arguments, padding_mode="same")


def test_from_taps_stays_where_the_taps_are():
    with torch.device("meta"):
        assert GaussianBank.from_taps(torch.ones(1, 3, device="cpu")).taps.device.type == "cpu"


def test_repr_tells_what_is_inside():
    assert repr(GaussianBank([0.0, 1.0])) == "GaussianBank(kernels=2, radius=3, trainable=False)"
    assert "channels=3, kernels=22" in repr(GaussianBank.gkmnet("v1", trainable=True))
    assert "padding_mode='reflect'" in repr(GaussianMixtureBlur(GaussianBank([1.0])))
