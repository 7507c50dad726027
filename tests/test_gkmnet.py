"""GKMNet against golden values of the authors' two releases, on every backend."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from gkm_ops import GKMNet
from gkm_ops.nn import GaussianConvolution

GOLDEN = Path(__file__).parent / "golden"
RELEASES = ["v1", "v2"]


@pytest.fixture(params=RELEASES)
def release(request):
    return request.param


@pytest.fixture
def golden(release):
    with np.load(GOLDEN / f"gkmnet_{release}.npz") as arrays:
        return dict(arrays)


def by_rule(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Weights that follow from their names alone, as the golden values were made with."""
    state = {}
    for name, value in net.state_dict().items():
        n = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(tuple(value.shape))
        if name.endswith("num_batches_tracked"):
            n = np.zeros_like(n)
        elif name.endswith("running_var"):
            n = 1 + 0.5 * np.abs(n)
        elif name.endswith(("running_mean", "bias")):
            n = 0.1 * n
        elif n.ndim == 1:
            n = 1 + 0.1 * n
        else:
            n = n / np.sqrt(np.prod(n.shape[1:]))
        state[name] = torch.from_numpy(np.asarray(n)).to(value.dtype)
    return state


@pytest.fixture
def net(release, backend):
    net = GKMNet(release=release)
    net.load_state_dict(by_rule(net))
    return net.to(backend.device)


def images_of(golden):
    return [torch.from_numpy(golden[f"in{scale}"]) for scale in (1, 2, 3)]


@pytest.fixture
def images(golden, backend):
    return [image.to(backend.device) for image in images_of(golden)]


def test_bank_equals_the_release(backend, golden, images, release):
    got = GaussianConvolution(release).to(backend.device)(images[2])
    np.testing.assert_allclose(got.cpu().numpy(), golden["gcm"], rtol=0, atol=1e-6)


def test_evaluation_equals_the_release(golden, images, net):
    net.eval()
    with torch.no_grad():
        outputs = net(*images)
    for scale, got in enumerate(outputs, 1):
        np.testing.assert_allclose(got.cpu().numpy(), golden[f"eval{scale}"], rtol=0, atol=1e-5)


def test_training_equals_the_release(golden, images, net):
    outputs = net(*images)
    for scale, got in enumerate(outputs, 1):
        want = golden[f"train{scale}"]
        assert np.linalg.norm(got.detach().cpu().numpy() - want) <= 1e-3 * np.linalg.norm(want)
    loss = sum(x.square().mean() for x in outputs)
    assert loss.item() == pytest.approx(golden["train_loss"].item(), rel=1e-3)

    loss.backward()
    got = {name: parameter.grad.norm().item() for name, parameter in net.named_parameters()}
    want = dict(zip(map(str, golden["names"]), golden["grad_norms"].tolist(), strict=True))
    assert got.keys() == want.keys()
    floor = 1e-3 * max(want.values())
    for name in want:
        assert got[name] == pytest.approx(want[name], abs=1e-2 * max(want[name], floor)), name
