"""``gkm fit`` from end to end: the table, what is written, what is refused, and what is left alone."""

from __future__ import annotations

import errno
import os
import sys

import numpy as np
import pytest
import skimage.data
import torch
from skimage.filters import gaussian

pytest.importorskip("torchmetrics")
pytest.importorskip("matplotlib")
pytest.importorskip("cv2")
pytest.importorskip("PIL")
pytest.importorskip("tqdm")

from PIL import ImageCms

from gkm_ops import photos
from gkm_ops.cli import main
from gkm_ops.defocus import GradientDescent, fit
from gkm_ops.photos import Photo

PICTURES = ["coefficients", "disk", "errors", "gaussian", "gkm"]


def pixels(sigma: float = 0.0, bits: int = 8, top: int = 60) -> np.ndarray:
    sharp = skimage.data.astronaut()[top : top + 40, 200:252] / 255
    blurred = gaussian(sharp, sigma, channel_axis=2) if sigma else sharp
    return (blurred * (2**bits - 1)).round().astype(f"uint{bits}")


@pytest.fixture
def gkm_fit(monkeypatch, tmp_path, capsys):
    """Runs the command in a folder with a pair of photos; its status, its output and its complaints."""
    monkeypatch.chdir(tmp_path)
    photos.write("sharp.png", Photo(pixels()))
    photos.write("defocused.png", Photo(pixels(1.5)))

    def run(*arguments, sharp="sharp.png", defocused="defocused.png", out="out"):
        status = main(["fit", sharp, defocused, "-o", out, "--device", "cpu", *map(str, arguments)])
        return status, *capsys.readouterr()

    return run


def files(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fits(**options):
    sharp, defocused = (photos.read(name).image for name in ("sharp.png", "defocused.png"))
    return {
        "disk": fit(sharp, defocused, model="disk", window=options.get("window", 1)),
        "gaussian": fit(sharp, defocused, model="gaussian", window=options.get("window", 1)),
        "gkm": fit(sharp, defocused, **options),
    }


def test_table_and_pictures_are_those_of_the_fits(gkm_fit):
    status, output, complaints = gkm_fit()
    assert (status, complaints) == (0, "")
    lines = [line.split() for line in output.splitlines()]
    assert lines[:2] == [["1", "x", "1", "pixels"], ["PSNR", "[dB]", "SSIM"]]
    want = fits()
    assert lines[2:] == [[model, f"{found.psnr:.2f}", f"{found.ssim:.4f}"] for model, found in want.items()]
    assert sorted(os.listdir("out")) == [f"{name}.png" for name in PICTURES]
    for model, found in want.items():
        np.testing.assert_array_equal(
            photos.read(f"out/{model}.png").pixels, Photo(pixels()).with_image(found.image).pixels
        )
    for picture in ("errors", "coefficients"):
        assert photos.read(f"out/{picture}.png").image.std() > 0.05


def test_several_windows(gkm_fit):
    status, output, _ = gkm_fit("--windows", 8, 1, 8)
    assert status == 0
    lines = [line.split() for line in output.splitlines()]
    assert lines[0] == ["1", "x", "1", "pixels", "8", "x", "8", "pixels"]
    for line, (model, by_pixel), by_window in zip(lines[2:], fits().items(), fits(window=8).values(), strict=True):
        figures = (f"{by_pixel.psnr:.2f}", f"{by_pixel.ssim:.4f}", f"{by_window.psnr:.2f}", f"{by_window.ssim:.4f}")
        assert line == [model, *figures]
    assert sorted(os.listdir("out")) == sorted(f"{name}{end}.png" for name in PICTURES for end in ("", "_window8"))


def test_gradient_descent(gkm_fit):
    status, output, _ = gkm_fit("--method", "gradient", "--steps", 7, "--bounded", "--coefficients", 0, 1, 2, 3, 21)
    assert status == 0
    want = fits(method=GradientDescent(steps=7, bounded=True))["gkm"]
    assert output.split()[-3:] == ["gkm", f"{want.psnr:.2f}", f"{want.ssim:.4f}"]


def test_ridge(gkm_fit):
    figures = [float(gkm_fit("--ridge", ridge, out=str(ridge))[1].split()[-2]) for ridge in (1e-1, 1e-3, 1e-5)]
    assert figures == sorted(figures)
    assert figures[0] + 10 < figures[2]


def test_photos_of_16_bits_keep_them(gkm_fit):
    photos.write("sharp.png", Photo(pixels(bits=16)), overwrite=True)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    photos.write("defocused.png", Photo(pixels(1.5, bits=16), icc_profile=profile), overwrite=True)
    assert gkm_fit()[0] == 0
    found = photos.read("out/gkm.png")
    assert found.pixels.dtype == np.uint16
    assert found.icc_profile == profile
    np.testing.assert_array_equal(found.pixels, photos.read("defocused.png").with_image(fits()["gkm"].image).pixels)


def test_grey_is_fitted_with_a_word_and_stays_grey(gkm_fit):
    for name, sigma in (("sharp.png", 0), ("defocused.png", 1.5)):
        photos.write(name, Photo(pixels(sigma)[..., :1]), overwrite=True)
    status, _, complaints = gkm_fit()
    assert status == 0
    assert [line.partition(", ")[0] for line in complaints.splitlines()] == [
        f"gkm fit: {name}: is grey" for name in ("sharp.png", "defocused.png")
    ]
    assert photos.read("out/gkm.png").pixels.shape == (40, 52, 1)


def test_misaligned_photos_are_fitted_with_a_word(gkm_fit):
    photos.write("defocused.png", Photo(pixels(1.0, top=57)), overwrite=True)
    status, output, complaints = gkm_fit("--windows", 1, 4)
    assert status == 0
    assert complaints.count("gkm fit: warning: the defocused photo lies +2.9 pixels further down and") == 1
    assert "gkm" in output


def test_photos_of_two_sizes_are_refused(gkm_fit, tmp_path):
    photos.write("defocused.png", Photo(pixels(1.5)[:, 1:]), overwrite=True)
    before = files(tmp_path)
    status, output, complaints = gkm_fit()
    assert (status, output) == (1, "")
    assert complaints == "gkm fit: error: defocused.png: got 51x40 pixels, wanted 52x40, the size of sharp.png\n"
    assert files(tmp_path) == before


@pytest.mark.parametrize("way", ["same name", "hard link", "symbolic link"])
def test_an_input_is_never_replaced(gkm_fit, tmp_path, way):
    os.mkdir("out")
    sharp = "sharp.png"
    if way == "same name":
        sharp = "out/gkm.png"
        os.rename("sharp.png", sharp)
    elif way == "hard link":
        os.link("sharp.png", "out/gkm.png")
    else:
        os.symlink("../sharp.png", "out/gkm.png")
    before = files(tmp_path)
    status, _, complaints = gkm_fit("--overwrite", sharp=sharp)
    assert status == 1
    assert "gkm.png: is an input, which is never replaced" in complaints
    assert files(tmp_path) == before


def test_existing_files_are_replaced_only_when_asked(gkm_fit, tmp_path):
    os.mkdir("out")
    (tmp_path / "out/errors_window4.png").write_text("something else")
    before = files(tmp_path)
    status, _, complaints = gkm_fit("--windows", 1, 4)
    assert status == 1
    assert "errors_window4.png: exists already; name another OUT, or give --overwrite" in complaints
    assert files(tmp_path) == before
    assert gkm_fit("--windows", 1, 4, "--overwrite")[0] == 0
    assert photos.read("out/errors_window4.png").image.std() > 0


def test_what_appears_meanwhile_is_not_replaced(gkm_fit, tmp_path, monkeypatch):
    def intruding(*arguments, **options):
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out/coefficients.png").write_text("something else")
        return fit(*arguments, **options)

    monkeypatch.setattr("gkm_ops.cli.fit.fit", intruding)
    status, _, complaints = gkm_fit()
    assert status == 1
    assert "coefficients.png: exists already" in complaints
    assert sorted(files(tmp_path / "out").values()) == [b"something else"]


def test_on_a_full_disk_the_figures_are_told_and_the_files_named(gkm_fit, monkeypatch):
    figures = gkm_fit("--windows", 8, 20, out="fine")[1]

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    status, output, complaints = gkm_fit("--windows", 8, 20)
    assert (status, output) == (1, figures)
    assert complaints.splitlines() == [
        f"gkm fit: error: [Errno 28] No space left on device: 'out/disk_window{window}.png'" for window in (8, 20)
    ]
    assert not os.listdir("out")


def test_an_interruption_keeps_what_has_been_computed(gkm_fit, monkeypatch):
    figures = gkm_fit("--windows", 8, out="fine")[1]

    def interrupted(*arguments, **options):
        if options["window"] == 20:
            raise KeyboardInterrupt
        return fit(*arguments, **options)

    monkeypatch.setattr("gkm_ops.cli.fit.fit", interrupted)
    assert gkm_fit("--windows", 8, 20)[:2] == (130, figures)
    assert sorted(os.listdir("out")) == [f"{name}_window8.png" for name in PICTURES]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--steps", "5"], "--steps: got it with --method closed_form, of which it is no setting"),
        (["--bounded"], "--bounded: got it with --method closed_form"),
        (["--method", "gradient", "--ridge", "0.1"], "--ridge: got it with --method gradient"),
        (["--ridge", "-1"], "ridge: got -1.0, wanted a finite number > 0"),
        (["--device", "abacus"], "--device: got 'abacus', which torch cannot use"),
        (["--max-megapixels", "0.001"], "megapixels, wanted at most 0.001"),
    ],
)
def test_bad_options_are_named(gkm_fit, tmp_path, options, message):
    before = files(tmp_path)
    status, _, complaints = gkm_fit(*options)
    assert status == 1
    assert f"gkm fit: error: {message}" in complaints or message in complaints
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    "options",
    [
        ["--windows", "0"],
        ["--windows", "x"],
        ["--coefficients", "22"],
        ["--steps", "0"],
        ["--max-megapixels", "nan"],
        ["--max-megapixels", "-1"],
    ],
)
def test_options_that_do_not_parse(gkm_fit, options):
    with pytest.raises(SystemExit, match="2"):
        gkm_fit(*options)


def test_bad_photos_and_places_are_named(gkm_fit, tmp_path):
    (tmp_path / "broken.png").write_text("not a photo")
    before = files(tmp_path)
    assert "broken.png: cannot identify" in gkm_fit(defocused="broken.png")[2]
    assert "No such file or directory: 'absent.png'" in gkm_fit(sharp="absent.png")[2]
    assert "--output: got 'broken.png', which is a file, wanted a folder" in gkm_fit(out="broken.png")[2]
    photos.write("tiny.png", torch.rand(3, 8, 8))
    assert "sharp: got 8x8 pixels, wanted at least 11 a side" in gkm_fit(sharp="tiny.png", defocused="tiny.png")[2]
    assert files(tmp_path).items() >= before.items()
    assert not os.path.exists("out")


def test_without_opencv_the_word_is_what_to_install(gkm_fit, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    status, _, complaints = gkm_fit()
    assert status == 1
    assert "misalignment is measured with OpenCV" in complaints
    assert not os.path.exists("out")
