"""``gkm evaluate`` and what it is made of: metrics against scikit-image, figures, complaints, exit status."""

from __future__ import annotations

import csv
import math
import subprocess
import sys

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from skimage.filters import gaussian
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from gkm_ops import GKMNet, metrics
from gkm_ops.cli import main
from gkm_ops.data.pairs import find_pairs
from gkm_ops.data.synthetic import SyntheticDefocus
from gkm_ops.evaluation import Row, Scores, evaluate, mean
from gkm_ops.weights import save_weights

GREY = 128 / 255  # what is left of 0.5 in 8 bits


def photo(top: int, height: int = 48, width: int = 64) -> np.ndarray:
    return skimage.data.astronaut()[top : top + height, 200 : 200 + width]


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def as_image(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels / 255).permute(2, 0, 1).float()


def scores(pixels: np.ndarray, sharp: np.ndarray) -> tuple[float, float]:
    """PSNR and SSIM of images with values in [0, 255], by scikit-image."""
    return peak_signal_noise_ratio(sharp, pixels, data_range=255), structural_similarity(
        sharp, pixels, data_range=255, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )


@pytest.fixture
def folder(tmp_path):
    """Two pairs, ``a`` and ``b``, with the pixels they hold."""
    for name, top in (("a", 0), ("b", 100)):
        sharp = photo(top)
        blurred = (gaussian(sharp, 2, channel_axis=2, preserve_range=True)).round().astype(np.uint8)
        save(tmp_path / f"photos/{name}_sharp.png", sharp)
        save(tmp_path / f"photos/{name}_blur.png", blurred)
    return tmp_path / "photos"


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """Of a network that answers 0.5 everywhere, whatever it is shown."""
    net = GKMNet()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        net.SumLayer.conv.bias.fill_(0.5)
    path = tmp_path_factory.mktemp("weights") / "grey.safetensors"
    save_weights(net, path)
    return path


@pytest.fixture
def gkm_evaluate(weights, capsys):
    """Runs the command; its status, its output and its complaints."""

    def run(*arguments):
        status = main(["evaluate", *map(str, arguments), "--weights", str(weights), "--device", "cpu"])
        return status, *capsys.readouterr()

    return run


def table_of(text: str) -> dict[str, list[float]]:
    """The rows of a printed table by their names."""
    return {name: list(map(float, figures)) for name, *figures in map(str.split, text.splitlines()[2:])}


class Doubling(torch.nn.Module):
    """Deblurs by doubling the values."""

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(()))

    def deblur(self, image):
        return 2 * image


def test_metrics_equal_scikit_image():
    sharp = photo(0)
    noisy = np.clip(sharp + np.random.default_rng(1).normal(0, 20, sharp.shape), 0, 255).round()
    psnr, ssim = scores(noisy, sharp.astype(float))
    assert metrics.psnr(as_image(noisy), as_image(sharp)) == pytest.approx(psnr, abs=1e-4)
    assert metrics.ssim(as_image(noisy), as_image(sharp)) == pytest.approx(ssim, abs=1e-4)


def test_metrics_clamp_and_know_equals():
    sharp = as_image(photo(0)).round()
    beyond = 3 * sharp - 1
    assert metrics.psnr(beyond, sharp) == math.inf
    assert metrics.ssim(beyond, sharp) == 1


def test_8_bits():
    got = metrics.in_8_bits(torch.tensor([-1, 0.4 / 255, 0.6 / 255, 0.5, 2]))
    torch.testing.assert_close(got, torch.tensor([0, 0, 1 / 255, GREY, 1]))


def test_metrics_refuse_what_does_not_fit():
    image = torch.rand(3, 16, 16)
    with pytest.raises(ValueError, match=r"\(3, 16, 16\) and \(3, 16, 15\)"):
        metrics.psnr(image, image[..., 1:])
    with pytest.raises(ValueError, match="at least 11 pixels a side for SSIM"):
        metrics.ssim(image[:, :10], image[:, :10])


def test_evaluate_scores_both_sides(folder):
    pairs = find_pairs([folder])
    rows = evaluate(Doubling(), pairs)
    assert [row.name for row in rows] == ["a", "b"]
    for row, pair in zip(rows, pairs, strict=True):
        blurred, sharp = (np.asarray(Image.open(path)).astype(float) for path in (pair.blurred, pair.sharp))
        assert row.blurred[:2] == pytest.approx(scores(blurred, sharp), abs=1e-4)
        assert row.restored[:2] == pytest.approx(scores((2 * blurred).clip(0, 255), sharp), abs=1e-4)
        assert row.gain.psnr == row.restored.psnr - row.blurred.psnr


def test_rounding_is_of_what_is_scored(folder):
    pairs = find_pairs([folder])[:1]
    net = Doubling()
    net.deblur = lambda image: torch.full_like(image, 0.5)
    sharp = as_image(np.asarray(Image.open(pairs[0].sharp)))
    for rounding, grey in ((True, GREY), (False, 0.5)):
        [row] = evaluate(net, pairs, rounding=rounding)
        assert row.restored.psnr == pytest.approx(metrics.psnr(torch.full_like(sharp, grey), sharp), abs=1e-5)


def test_mean_and_gain_by_lpips():
    rows = [
        Row("a", Scores(20, 0.5, 0.5), Scores(22, 0.5, 0.25)),
        Row("b", Scores(30, 0.75, 0.25), Scores(31, 1.0, 0.25)),
    ]
    assert mean(rows) == Row("mean", Scores(25, 0.625, 0.375), Scores(26.5, 0.75, 0.25))
    assert mean(rows).gain == Scores(1.5, 0.125, 0.125)
    with pytest.raises(ValueError, match="rows: got none"):
        mean([])


def test_synthetic_blur_is_seeded_by_place(folder):
    pairs = find_pairs([folder])
    blur = SyntheticDefocus()
    for index, row in enumerate(evaluate(Doubling(), pairs, blur=blur)):
        sharp = as_image(np.asarray(Image.open(pairs[index].sharp)))
        assert row.blurred.psnr == pytest.approx(metrics.psnr(blur(sharp, seed=index), sharp), abs=1e-4)


def test_errors_are_raised_where_nobody_listens(folder):
    (folder / "b_sharp.png").write_bytes(b"no photo")
    with pytest.raises(ValueError, match="b_sharp"):
        evaluate(Doubling(), find_pairs([folder]))


def test_a_network_that_gives_nan_is_told_of(folder):
    net = Doubling()
    net.deblur = lambda image: image * math.nan
    with pytest.raises(ValueError, match=r"a_blur\.png: the network gave NaN"):
        evaluate(net, find_pairs([folder]))


def test_table_and_csv(folder, gkm_evaluate, tmp_path):
    status, out, _ = gkm_evaluate(folder, "-o", tmp_path / "figures.csv")
    assert status == 0
    table = table_of(out)
    with (tmp_path / "figures.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert list(table) == [line["name"] for line in lines] == ["a", "b", "mean"]
    for name, line in zip("ab", lines, strict=False):
        sharp = np.asarray(Image.open(folder / f"{name}_sharp.png")).astype(float)
        before = scores(np.asarray(Image.open(folder / f"{name}_blur.png")).astype(float), sharp)
        after = scores(np.full_like(sharp, 128), sharp)
        want = [before[0], after[0], after[0] - before[0], before[1], after[1], after[1] - before[1]]
        metric_stage = [f"{metric}_{stage}" for metric in ("psnr", "ssim") for stage in ("blurred", "restored", "gain")]
        assert [float(line[key]) for key in metric_stage] == pytest.approx(want, abs=1e-4)
        assert table[name] == pytest.approx(want, abs=0.0051)
    assert table["mean"] == pytest.approx([(a + b) / 2 for a, b in zip(table["a"], table["b"], strict=True)], abs=0.011)


def test_table_is_aligned(folder, gkm_evaluate):
    (folder / "a_blur.png").rename(folder / "a_photo_of_a_long_name_blur.png")
    (folder / "a_sharp.png").rename(folder / "a_photo_of_a_long_name_sharp.png")
    _, out, _ = gkm_evaluate(folder)
    assert len({len(line) for line in out.splitlines()}) == 1


def test_existing_file_is_kept(folder, gkm_evaluate, tmp_path):
    path = tmp_path / "figures.csv"
    path.write_text("mine")
    status, out, complaints = gkm_evaluate(folder, "-o", path)
    assert (status, out, path.read_text()) == (1, "", "mine")
    assert "exists already" in complaints
    status, *_ = gkm_evaluate(folder, "-o", path, "--overwrite")
    assert status == 0
    assert path.read_text().startswith("name,psnr_blurred,")


def test_a_photo_is_never_replaced(folder, gkm_evaluate):
    photo = next(folder.rglob("*.png"))
    before = photo.read_bytes()
    status, out, complaints = gkm_evaluate(folder, "-o", photo, "--overwrite")
    assert (status, out, photo.read_bytes()) == (1, "", before)
    assert "is an input" in complaints


def test_a_folder_for_the_file_is_made_or_told_of_first(folder, gkm_evaluate, tmp_path):
    assert gkm_evaluate(folder, "-o", tmp_path / "new/figures.csv")[0] == 0
    assert (tmp_path / "new/figures.csv").is_file()
    status, out, complaints = gkm_evaluate(folder, "-o", tmp_path / "new/figures.csv/again.csv")
    assert (status, out) == (1, "")
    assert complaints.startswith("gkm evaluate: error: --output: ")


def test_a_backend_that_cannot_serve_is_told_once(folder, gkm_evaluate, monkeypatch):
    monkeypatch.setenv("GKM_OPS_BACKEND", "triton")
    status, out, complaints = gkm_evaluate(folder)
    assert (status, out, len(complaints.splitlines())) == (1, "", 1)
    assert complaints.startswith("gkm evaluate: error: backend 'triton' was asked for and cannot serve torch.float32")


@pytest.mark.parametrize("bad", ["damaged", "other size", "too small", "too large"])
def test_bad_pairs_are_skipped_and_told_of(folder, gkm_evaluate, bad):
    limit = []
    if bad == "damaged":
        (folder / "a_blur.png").write_bytes((folder / "a_blur.png").read_bytes()[:200])
    elif bad == "other size":
        save(folder / "a_blur.png", photo(0, width=63))
    elif bad == "too small":
        save(folder / "a_blur.png", photo(0, 10))
        save(folder / "a_sharp.png", photo(0, 10))
    else:
        save(folder / "a_sharp.png", photo(0, 100, 100))
        limit = ["--max-megapixels", "0.005"]
    status, out, complaints = gkm_evaluate(folder, *limit)
    assert status == 1
    assert list(table_of(out)) == ["b", "mean"]
    assert "a skipped: " in complaints
    assert "1 of 2 skipped" in complaints


def test_nothing_to_score_prints_and_writes_nothing(folder, gkm_evaluate, tmp_path):
    for path in folder.glob("*_blur.png"):
        path.write_bytes(b"no photo")
    status, out, complaints = gkm_evaluate(folder, "-o", tmp_path / "figures.csv")
    assert (status, out) == (1, "")
    assert "2 of 2 skipped" in complaints
    assert not (tmp_path / "figures.csv").exists()


def test_synthetic_takes_sharp_photos(tmp_path, gkm_evaluate):
    for name, top in (("second", 100), ("first", 0)):
        save(tmp_path / f"{name}.png", photo(top))
    status, out, _ = gkm_evaluate("--synthetic", tmp_path / "second.png", tmp_path / "first.png")
    assert status == 0
    table = table_of(out)
    assert list(table) == ["first", "second", "mean"]
    sharp = as_image(photo(100))
    assert table["second"][0] == pytest.approx(metrics.psnr(SyntheticDefocus()(sharp, seed=1), sharp), abs=0.0051)


def test_photos_of_one_name_are_told_apart(tmp_path, gkm_evaluate):
    for name in ("sea", "land"):
        save(tmp_path / name / "a.png", photo(100))
    status, out, _ = gkm_evaluate("--synthetic", tmp_path / "sea", tmp_path / "land")
    assert (status, list(table_of(out))) == (0, ["land/a", "sea/a", "mean"])


def test_options_of_pairs_are_refused_beside_synthetic(tmp_path, gkm_evaluate):
    save(tmp_path / "a.png", photo(100))
    for option in (("--split", "val"), ("--blur-suffix", "_b"), ("--sharp-suffix", "_s")):
        status, _, complaints = gkm_evaluate("--synthetic", tmp_path, *option)
        assert status == 1
        assert "--synthetic: got it beside --blur-suffix, --sharp-suffix or --split" in complaints


def test_figures_are_written_though_nobody_reads_the_table(folder, weights, tmp_path):
    options = ["-o", str(tmp_path / "figures.csv"), "--weights", str(weights), "--device=cpu", "--no-lpips"]
    process = subprocess.Popen(
        [sys.executable, "-m", "gkm_ops", "evaluate", str(folder), *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    process.stdout.close()
    assert "error" not in process.stderr.read()
    assert process.wait() == 141
    assert (tmp_path / "figures.csv").read_text().startswith("name,")


def test_the_weights_are_an_input(folder, weights, gkm_evaluate):
    before = weights.read_bytes()
    status, _, complaints = gkm_evaluate(folder, "-o", weights, "--overwrite")
    assert (status, weights.read_bytes()) == (1, before)
    assert "is an input, which is never replaced" in complaints


def test_synthetic_leaves_depth_maps_out(tmp_path, gkm_evaluate):
    save(tmp_path / "scene_depth.png", photo(100)[..., 0])
    status, _, complaints = gkm_evaluate("--synthetic", tmp_path)
    assert status == 1
    assert "DATA: got depth maps alone (X_depth.png), wanted sharp photos for --synthetic" in complaints
    save(tmp_path / "scene.png", photo(0))
    status, out, _ = gkm_evaluate("--synthetic", tmp_path)
    assert (status, list(table_of(out))) == (0, ["scene", "mean"])


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--blur-suffix", "_out"], "wanted a_out.png"),
        (["nowhere"], "nowhere: no such file"),
        (["--device", "none"], "--device: got 'none'"),
    ],
)
def test_bad_arguments_end_in_a_message(folder, weights, capsys, arguments, complaint):
    assert main(["evaluate", str(folder), *arguments, "--weights", str(weights)]) == 1
    assert complaint in capsys.readouterr().err


def test_a_missing_library_is_told_of(folder, gkm_evaluate, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    status, _, complaints = gkm_evaluate(folder)
    assert status == 1
    assert "tqdm" in complaints
    assert 'pip install "gkm-ops[evaluate]"' in complaints


def test_lpips_takes_part_where_it_can(folder, gkm_evaluate, monkeypatch):
    """Torchvision, whose weights come from the network, is stood in for."""
    monkeypatch.setattr(metrics, "LPIPS", lambda device: lambda image, sharp: (image - sharp).abs().mean().item())
    status, out, _ = gkm_evaluate(folder)
    assert status == 0
    assert "LPIPS" in out
    row = table_of(out)["a"]
    sharp, blurred = (np.asarray(Image.open(folder / f"a_{side}.png")) / 255 for side in ("sharp", "blur"))
    before, after = np.abs(blurred - sharp).mean(), np.abs(GREY - sharp).mean()
    assert row[6:] == pytest.approx([before, after, before - after], abs=1e-4)
    assert "LPIPS" not in gkm_evaluate(folder, "--no-lpips")[1]


@pytest.mark.parametrize(
    ("failure", "said"), [(ModuleNotFoundError("no"), "pip install torchvision"), (OSError("offline"), "offline")]
)
def test_lpips_says_how_to_get_it(folder, gkm_evaluate, monkeypatch, failure, said):
    def fail(*args, **kwargs):
        raise failure

    monkeypatch.setattr(metrics, "LearnedPerceptualImagePatchSimilarity", fail)
    status, out, complaints = gkm_evaluate(folder)
    assert status == 0
    assert "LPIPS" not in out
    assert said in complaints
