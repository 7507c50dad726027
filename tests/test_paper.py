"""The paper's tables and figures: a small run of everything, and what the pieces compute."""

import csv
import json

import cv2
import numpy as np
import pytest
import torch

from benchmarks.paper import cli, dense, pairs, report, table1, table2
from benchmarks.paper.supplement import TABLE_2
from gkm_ops import GaussianBank, GKMNet, gkm_blur, gkm_blur_adjoint
from gkm_ops.nn import HQSNet, pyramid


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two pairs of 64 x 48 pixels, the defocused ones with the bank's 12th kernel."""
    bank, generator = GaussianBank.gkmnet(), torch.Generator().manual_seed(3)
    kernel = torch.zeros(1, 22, 48, 64)
    kernel[:, 11] = 1
    path = tmp_path_factory.mktemp("pairs")
    for name in ("a", "b"):
        sharp = torch.rand(1, 3, 48, 64, generator=generator)
        for suffix, image in (("sharp", sharp), ("blur", gkm_blur(sharp, kernel, bank))):
            pixels = (image[0].permute(1, 2, 0) * 65535).round().numpy().astype(np.uint16)
            cv2.imwrite(str(path / f"{name}_{suffix}.png"), pixels[..., ::-1])
    return path


def test_everything_on_given_pairs(folder, tmp_path, capsys):
    out = tmp_path / "made"
    arguments = [str(folder), "--photos", str(folder / "a_blur.png"), "--out", str(out), "--windows", "1", "16"]
    assert cli.main([*arguments, "--cg-steps", "10", "--size", "64x48"]) == 0
    printed = capsys.readouterr().out
    record = json.loads((out / "paper.json").read_text())
    assert (out / "paper.md").read_text() in printed
    assert report.full(record) == (out / "paper.md").read_text()
    for number in range(1, 5):
        height, width = cv2.imread(str(out / f"figure-{number}.png")).shape[:2]
        assert min(height, width) > 300

    with (out / "table1.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 3
    scores = {(row["name"], row["window"], row["model"]): float(row["psnr"]) for row in rows}
    for name in ("a", "b"):  # blurred by one Gaussian, but for rounding
        assert scores[name, "16", "gaussian"] > 70
        assert scores[name, "16", "gaussian"] > scores[name, "16", "disk"] + 10
    with (out / "table2.csv").open() as file:
        networks = [row["network"] for row in csv.DictReader(file)]
    assert networks == ["GKMNet", "HQS + CG (P = 10)"]


def test_one_part_alone(folder, tmp_path):
    assert cli.main([str(folder), "--out", str(tmp_path), "--parts", "table1", "--windows", "8"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["paper.json", "paper.md", "table1.csv"]


def test_a_folder_without_pairs_is_an_error(tmp_path, capsys):
    assert cli.main([str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert "benchmarks.paper: error:" in capsys.readouterr().err


@pytest.mark.parametrize("size", ["848", "848x561", "16x16", "axb"])
def test_a_size_that_the_networks_cannot_take(size, capsys):
    with pytest.raises(SystemExit):
        cli.main(["--size", size])
    assert "multiples of 16" in capsys.readouterr().err


def test_means():
    rows = [
        {"set": "s", "name": name, "window": 1, "model": "gkm", "psnr": psnr, "ssim": ssim}
        for name, psnr, ssim in (("a", 50.0, 0.5), ("b", 60.0, 1.0))
    ]
    assert table1.means(rows) == {("s", 1, "gkm"): (55.0, 0.75)}


def test_pairs_of_scikit_image_are_real_photos_blurred():
    for pair in pairs.from_scikit_image():
        assert pair.sharp.shape == pair.defocused.shape
        assert (pair.sharp - pair.defocused).abs().mean() > 0.002
        gradient = [image.diff(dim=2).abs().mean() for image in (pair.sharp, pair.defocused)]
        assert gradient[1] < gradient[0]


def test_the_dense_bank_is_the_fused_ops():
    bank = GaussianBank.gkmnet()
    x, coeffs = torch.randn(2, 3, 24, 30), torch.randn(2, 22, 24, 30)
    published = dense.DenseBank(bank)
    torch.testing.assert_close(published.blur(x, coeffs), gkm_blur(x, coeffs, bank), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(published.adjoint(x, coeffs), gkm_blur_adjoint(x, coeffs, bank), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("fused", "published"),
    [(GKMNet, dense.DenseGKMNet), (lambda: HQSNet(2), lambda: dense.DenseHQSNet(2))],
    ids=["GKMNet", "HQS"],
)
def test_dense_networks_compute_the_same(fused, published):
    ours, theirs = fused().eval(), published().eval()
    theirs.load_state_dict(ours.state_dict())
    levels = pyramid(torch.rand(1, 3, 48, 64))
    with torch.no_grad():
        torch.testing.assert_close(theirs(*levels)[0], ours(*levels)[0], rtol=1e-4, atol=1e-4)


def test_a_network_that_computes_something_else_is_not_timed(monkeypatch):
    monkeypatch.setattr(dense.DenseBank, "blur", lambda self, x, coeffs: x)
    with pytest.raises(table2.DisagreementError, match="DenseHQSNet: off by"):
        table2._seconds(lambda: HQSNet(2), lambda: dense.DenseHQSNet(2), (48, 64), "cpu")


def test_the_cost_of_a_step():
    """One application of the normal operator more for each step, and nothing else."""
    counts = [sum(table2._flops(lambda steps=steps: HQSNet(steps)).values()) for steps in (1, 2, 5)]
    assert counts[2] - counts[1] == 3 * (counts[1] - counts[0])


def test_parameters_are_the_supplement_s():
    for steps, printed in TABLE_2.items():
        net = GKMNet() if steps is None else HQSNet(steps)
        assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(printed.parameters, rel=0.01)
