"""The paper's tables and figures: a small run of everything, and what the pieces compute."""

import csv
import shutil
import warnings

import cv2
import numpy as np
import pytest
import torch

from benchmarks.paper import card, cli, closed_form, dense, pairs, report, table1, table2
from benchmarks.paper.clock import DisagreementError
from benchmarks.paper.supplement import TABLE_2
from gkm_ops import GaussianBank, GKMNet, gkm_blur, gkm_blur_adjoint
from gkm_ops.defocus import ClosedForm
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
    out, record = tmp_path / "made", tmp_path / "record"
    arguments = [str(folder), "--photos", str(folder / "a_blur.png"), "--out", str(out), "--record", str(record)]
    arguments += ["--windows", "1", "16", "--descent-steps", "12", "--cg-steps", "10", "--size", "64x48"]
    assert cli.main(arguments) == 0
    assert (record / "paper.md").read_text() in capsys.readouterr().out
    names = [f"figure-{number}.png" for number in ("1", "2", "3", "4-busiest", "4")]
    assert sorted(path.name for path in out.iterdir()) == names
    for path in out.iterdir():
        assert min(cv2.imread(str(path)).shape[:2]) > 300

    records = report.read(record)
    assert tuple(records) == cli.MEASURED
    assert report.full(records) == (record / "paper.md").read_text()
    with (record / "table1.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 4
    scores = {(row["name"], row["window"], row["model"]): float(row["psnr"]) for row in rows}
    for name in ("a", "b"):  # blurred by one Gaussian, but for rounding
        assert scores[name, "16", "gaussian"] > 70
        assert scores[name, "16", "gaussian"] > scores[name, "16", "disk"] + 10
        assert scores[name, "16", "disk"] > scores[name, "16", "narrow disk"]
    with (record / "table2.csv").open() as file:
        networks = [row["network"] for row in csv.DictReader(file)]
    assert networks == ["GKMNet", "HQS + CG (P = 10)"]
    (descent,) = records["descent"]["rows"]
    assert list(descent["free"]["curve"]) == ["10"]
    assert descent["free"]["curve"]["10"] < descent["free"]["psnr"] < descent["closed_form"]["psnr"]
    assert descent["bounded"]["largest"] <= 1
    for row in records["gradients"]["by_tolerance"]:
        assert row["difference"] < 30 * row["tolerance"]
    (kept,) = records["gradients"]["kept"]
    assert kept["images_kept"]["implicit"] < kept["images_kept"]["unrolled"]


def test_a_part_is_put_beside_those_that_are_there(folder, tmp_path):
    run = [str(folder), "--out", str(tmp_path), "--windows", "8", "--parts"]
    assert cli.main([*run, "table1"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["paper.md", "table1.csv", "table1.json"]
    more = [*run, "closed_form", "--size", "64x48"]
    before = (tmp_path / "paper.md").read_text()
    assert cli.main(more) == 1  # not without being asked
    assert (tmp_path / "paper.md").read_text() == before
    assert cli.main([*more, "--overwrite"]) == 0
    tables = (tmp_path / "paper.md").read_text()
    assert tables.index("## Table 1") < tables.index("## The closed form's cost")


def test_a_folder_without_pairs_is_an_error(tmp_path, capsys):
    assert cli.main([str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert "benchmarks.paper: error:" in capsys.readouterr().err


def test_an_input_is_never_replaced(folder, tmp_path, capsys):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "a_blur.png").rename(tmp_path / "figure-3.png")
    before = (tmp_path / "figure-3.png").read_bytes()
    run = [str(folder), "--photos", str(tmp_path / "figure-3.png"), "--parts", "figures", "--out", str(tmp_path)]
    assert cli.main([*run, "--overwrite"]) == 1
    assert "figure-3.png: is an input" in capsys.readouterr().err
    assert (tmp_path / "figure-3.png").read_bytes() == before


def test_bad_pairs_are_named(folder, tmp_path, capsys):
    def run(name, change):
        shutil.copytree(folder, tmp_path / name)
        photo = cv2.imread(str(folder / "b_blur.png"), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(tmp_path / name / "b_blur.png"), change(photo))
        out = tmp_path / f"{name} out"
        status = cli.main([str(tmp_path / name), "--parts", "table1", "--windows", "8", "--out", str(out)])
        return status, capsys.readouterr().err

    status, said = run("cut", lambda photo: photo[:-1])
    assert status == 1
    assert "b_blur.png: got 64x47 pixels, wanted 64x48 as of" in said
    status, said = run("grey", lambda photo: photo[..., 0])
    assert status == 0
    assert "grey, b: is grey" in said


def test_warnings_name_the_pair():
    with (
        pytest.warns(UserWarning, match=r"^lytro, a: it moved$"),
        pairs.naming(pairs.Images("a", "lytro", torch.zeros(3))),
    ):
        warnings.warn("it moved", stacklevel=1)


def test_sets_of_one_name_stay_apart(folder, tmp_path):
    for parent in ("one", "two"):
        shutil.copytree(folder, tmp_path / parent / "set")
    both = pairs.from_folders([tmp_path / "one/set", tmp_path / "two/set"])
    assert [pair.source for pair in both] == ["one/set"] * 2 + ["two/set"] * 2


def test_a_device_that_is_not_there_is_named(tmp_path, capsys):
    assert cli.main(["--device", "nonsense", "--out", str(tmp_path)]) == 1
    assert "--device: got 'nonsense', which torch cannot use" in capsys.readouterr().err


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


class _WorseForm(ClosedForm):
    def __call__(self, *arguments):
        return 0.9 * super().__call__(*arguments)


def test_a_closed_form_that_misses_is_not_timed(monkeypatch):
    monkeypatch.setattr(closed_form, "ClosedForm", _WorseForm)
    with pytest.raises(DisagreementError, match="ClosedForm: misses by"):
        closed_form.measure("cpu", (48, 64))


def test_a_network_that_computes_something_else_is_not_timed(monkeypatch):
    monkeypatch.setattr(dense.DenseBank, "blur", lambda self, x, coeffs: x)
    with pytest.raises(DisagreementError, match="DenseHQSNet: off by"):
        table2.measure([1], (48, 64), "cpu")


def test_the_cost_of_a_step():
    """One application of the normal operator more for each step, and nothing else."""
    counts = [sum(table2._flops(lambda steps=steps: HQSNet(steps)).values()) for steps in (1, 2, 5)]
    assert counts[2] - counts[1] == 3 * (counts[1] - counts[0])


def test_parameters_are_the_supplement_s():
    for steps, printed in TABLE_2.items():
        net = GKMNet() if steps is None else HQSNet(steps)
        assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(printed.parameters, rel=0.01)


def test_macs_by_modules_are_the_supplement_s_flops():
    """But for what the network here leaves out: a memory of zeros, norms that are folded away, the sum layer."""
    by_modules = table2._flops(GKMNet, {torch.ops.aten.convolution: table2._by_modules})["aten.convolution"]
    assert by_modules / 1e9 == pytest.approx(TABLE_2[None].gflops, rel=0.02)


def test_the_page_shows_the_records_that_are_there():
    assert card.card() == card.CARD.read_text()
    assert tuple(report.read(card.RECORDS)) == cli.MEASURED
