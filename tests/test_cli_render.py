"""``gkm render`` from end to end: photos, focus pulls, depth maps of all kinds, what is refused, what is left alone."""

from __future__ import annotations

import errno
import os
import sys

import numpy as np
import pytest
import torch

pytest.importorskip("PIL")
pytest.importorskip("tifffile")
pytest.importorskip("tqdm")
pytest.importorskip("cv2")
import cv2
import tifffile
from PIL import Image, ImageCms

from gkm_ops import photos, video
from gkm_ops.cli import main
from gkm_ops.defocus import render as render_light
from gkm_ops.photos import Photo
from gkm_ops.srgb import to_linear, to_srgb

H, W = 48, 64
# A wall, a box before it and a pillar in front of both.
DEPTH = np.full((H, W), 20.0)
DEPTH[30:] = 120
DEPTH[:, 40:56] = 230


@pytest.fixture
def run(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    photos.write("photo.png", photo())
    save_depth("depth.png", DEPTH)
    return lambda *arguments: main(["render", "--device", "cpu", *map(str, arguments)])


@pytest.fixture
def render(run):
    return lambda *arguments: run("photo.png", "depth.png", "--aperture", 9, *arguments)


def photo(channels: int = 3, bits: int = 8) -> Photo:
    drawn = np.random.default_rng(5).integers(0, 2**bits, (H // 3, W // 4, channels))
    return Photo(np.kron(drawn, np.ones((3, 4, 1))).astype(f"uint{bits}"))


def save_depth(path, depth, kind="uint8"):
    Image.fromarray(depth.astype(kind)).save(path)


def files(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def disparity():
    return torch.from_numpy((DEPTH - DEPTH.min()) / (DEPTH.max() - DEPTH.min())).float()


def expected(image, focus, aperture=9.0, shape="disk"):
    return to_srgb(render_light(to_linear(image), disparity(), focus=focus, aperture=aperture, shape=shape))


def pixels(path):
    return photos.read(path).pixels.astype(int)


@pytest.mark.parametrize(("suffix", "bits"), [(".png", 8), (".png", 16), (".tif", 16), (".tif", 8)])
@pytest.mark.parametrize("shape", ["disk", "gaussian"])
def test_a_photo_becomes_what_the_library_makes_of_it(run, suffix, bits, shape):
    photos.write(f"source{suffix}", photo(bits=bits))
    arguments = ["--focus", 0.25, "--aperture", 9, "--shape", shape]
    assert run(f"source{suffix}", "depth.png", *arguments, "-o", f"new/out{suffix}") == 0
    source, got = photos.read(f"source{suffix}"), photos.read(f"new/out{suffix}")
    want = source.with_image(expected(source.image, 0.25, shape=shape))
    assert got.pixels.dtype == source.pixels.dtype
    assert np.abs(got.pixels.astype(int) - want.pixels).max() <= 1
    assert np.abs(got.pixels.astype(int) - source.pixels).mean() > 0.03 * 2**bits


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_grey_stays_grey_and_alpha_stays_as_it_is(run, channels):
    source = photo(channels)
    if channels in (2, 4):
        source.pixels[..., -1] = 255
    photos.write("source.png", source)
    assert run("source.png", "depth.png", "--focus", 1, "--aperture", 9, "-o", "out.png") == 0
    got = photos.read("out.png")
    assert got.pixels.shape == source.pixels.shape
    if channels in (2, 4):
        np.testing.assert_array_equal(got.pixels[..., -1], source.pixels[..., -1])
    assert np.abs(got.pixels.astype(int) - source.with_image(expected(source.image, 1.0)).pixels).max() <= 1


@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("output", ["out.png", "out.gif"])
def test_transparent_pixels_are_refused(run, capsys, channels, output):
    photos.write("source.png", photo(channels))
    options = ["--sweep"] if output == "out.gif" else ["--focus", 1]
    assert run("source.png", "depth.png", *options, "--aperture", 9, "-o", output) == 1
    assert "source.png: got transparent pixels, wanted an opaque photo" in capsys.readouterr().err


def test_profile_and_exif_are_kept(run):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    photos.write("source.jpg", Photo(photo().pixels, exif.tobytes(), profile))
    assert run("source.jpg", "depth.png", "--focus", 1, "--aperture", 9, "-o", "out.jpg") == 0
    with Image.open("out.jpg") as image:
        assert image.info["icc_profile"] == profile
        assert image.getexif()[0x010F] == "Maker"


def write_pfm(path, depth):
    content = np.ascontiguousarray(depth[::-1].astype("<f4"))
    path.write_bytes(b"Pf\n%d %d\n-1.0\n" % (depth.shape[1], depth.shape[0]) + content.tobytes())


DEPTH_FILES = {
    "colours.png": lambda path: Image.fromarray(DEPTH.astype(np.uint8)).convert("RGB").save(path),
    "alpha.png": lambda path: Image.fromarray(DEPTH.astype(np.uint8)).convert("RGBA").save(path),
    "16 bits.png": lambda path: save_depth(path, 257 * DEPTH, "uint16"),
    "16 bits.tif": lambda path: tifffile.imwrite(path, (100 * DEPTH).astype(np.uint16)),
    "floats.tiff": lambda path: tifffile.imwrite(path, (3e-4 * DEPTH - 7).astype(np.float32)),
    "floats.pfm": lambda path: write_pfm(path, DEPTH / 255),
    "floats.npy": lambda path: np.save(path, 1e9 * DEPTH),
    "integers.npy": lambda path: np.save(path, DEPTH.astype(np.int32)),
    "channel last.npy": lambda path: np.save(path, DEPTH[..., None]),
    "channel first.npy": lambda path: np.save(path, DEPTH[None]),
}


@pytest.mark.parametrize("name", DEPTH_FILES)
def test_the_same_depth_in_any_file_gives_the_same(run, render, tmp_path, name):
    DEPTH_FILES[name](tmp_path / name)
    assert render("--focus", 0, "-o", "want.png") == 0
    assert run("photo.png", name, "--aperture", 9, "--focus", 0, "-o", "out.png") == 0
    assert np.abs(pixels("out.png") - pixels("want.png")).max() <= 1


def test_a_mask_is_a_depth_of_two(run, render):
    near = DEPTH > 200
    np.save("bool.npy", near)
    save_depth("grey.png", 255 * near)
    for name in ("bool.npy", "grey.png"):
        assert run("photo.png", name, "--aperture", 9, "--focus", 0, "-o", f"out-{name[:4]}.png") == 0
    np.testing.assert_array_equal(pixels("out-bool.png"), pixels("out-grey.png"))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
@pytest.mark.parametrize("orientation", [3, 6])
def test_a_depth_map_is_turned_as_its_exif_says(run, render, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.rot90(DEPTH, 2 if orientation == 3 else 1).astype(np.uint8)
    options = {"quality": 100} if suffix == ".jpg" else {}
    Image.fromarray(stored).save(f"turned{suffix}", exif=exif, **options)
    assert render("--focus", 0, "-o", "want.png") == 0
    assert run("photo.png", f"turned{suffix}", "--aperture", 9, "--focus", 0, "-o", "out.png") == 0
    assert np.abs(pixels("out.png") - pixels("want.png")).mean() < 1


@pytest.mark.parametrize(("channels", "bits"), [(3, 16), (4, 8)])
def test_a_photo_that_the_format_cannot_hold_is_refused_before_the_work(run, monkeypatch, capsys, channels, bits):
    monkeypatch.setattr("gkm_ops.cli.render.render", None)
    photos.write("source.png", photo(channels, bits))
    assert run("source.png", "depth.png", "--aperture", 9, "--focus", 0, "-o", "out.jpg") == 1
    assert f"out.jpg: got a photo with {bits} bits, {channels} channels, which a JPEG" in capsys.readouterr().err


def test_distance_is_the_other_way_round(run, render):
    np.save("distance.npy", 3 / DEPTH)
    assert render("--focus", 0.8, "-o", "want.png") == 0
    arguments = ["photo.png", "distance.npy", "--aperture", 9, "--focus", 0.8]
    assert run(*arguments, "--depth", "distance", "-o", "out.png") == 0
    assert np.abs(pixels("out.png") - pixels("want.png")).max() <= 1
    assert run(*arguments, "-o", "wrong.png") == 0
    assert np.abs(pixels("wrong.png") - pixels("want.png")).mean() > 5


def test_what_is_infinitely_far_is_the_end_of_the_range(run, capsys):
    far = np.where(DEPTH < 60, np.inf, 1 / DEPTH)
    np.save("distance.npy", far)
    np.save("disparity.npy", 1 / far)
    arguments = ["photo.png", "--aperture", 9, "--focus", 0]
    assert run(*arguments, "distance.npy", "--depth", "distance", "-o", "out.png") == 0
    assert run(*arguments, "disparity.npy", "-o", "want.png") == 0
    assert capsys.readouterr().err == ""
    np.testing.assert_array_equal(pixels("out.png"), pixels("want.png"))


@pytest.mark.parametrize("size", [(H // 2, W // 2), (2 * H, 2 * W)])
def test_a_depth_map_of_another_size_fits_and_its_edges_stay_hard(run, size):
    for name, (height, width) in (("same", (H, W)), ("other", size)):
        save_depth(f"{name}.png", np.tile(np.repeat([20.0, 230.0], width // 2), (height, 1)))
        assert run("photo.png", f"{name}.png", "--aperture", 9, "--focus", 1, "-o", f"out-{name}.png") == 0
    assert np.abs(pixels("out-other.png") - pixels("out-same.png")).max() <= 1
    np.testing.assert_array_equal(pixels("out-other.png")[:, W // 2 :], pixels("photo.png")[:, W // 2 :])


@pytest.mark.parametrize("size", [(16, 21), (16, 22), (31, 42)])
def test_proportions_may_be_rounded(run, size):
    save_depth("other.png", np.tile(np.linspace(0, 255, size[1]), (size[0], 1)))
    assert run("photo.png", "other.png", "--aperture", 9, "--focus", 1, "-o", "out.png") == 0


def test_a_pixel_can_be_put_in_focus(render):
    for name, focus in (("pillar", "45,10"), ("value", "1"), ("wall", "0,0"), ("least", "0.0")):
        assert render("--focus", focus, "-o", f"{name}.png") == 0
    np.testing.assert_array_equal(pixels("pillar.png"), pixels("value.png"))
    np.testing.assert_array_equal(pixels("wall.png"), pixels("least.png"))
    assert np.abs(pixels("wall.png") - pixels("pillar.png")).mean() > 5
    np.testing.assert_array_equal(pixels("pillar.png")[:, 44:52], photo().pixels[:, 44:52])


@pytest.mark.parametrize("gap", [np.nan, np.inf, -np.inf])
def test_gaps_are_filled_from_behind_and_told_of(run, render, capsys, gap):
    depth = DEPTH.copy()
    depth[:, 36:40] = gap  # beside the pillar, where the wall goes on
    np.save("gaps.npy", depth)
    assert render("--focus", 0, "-o", "want.png") == 0
    assert run("photo.png", "gaps.npy", "--aperture", 9, "--focus", 0, "-o", "out.png") == 0
    np.testing.assert_array_equal(pixels("out.png"), pixels("want.png"))
    want = "gkm render: warning: gaps.npy: 6.25% of it is not finite; filled with the farther neighbour in the row\n"
    assert capsys.readouterr().err == want


def test_distances_that_were_not_measured_are_gaps(run, capsys):
    distance = 1 / DEPTH
    distance[:, 36:40] = [0, -1, np.nan, 0]
    np.save("gaps.npy", distance)
    arguments = ["--aperture", 9, "--focus", 0, "--depth", "distance", "-o", "out.png"]
    assert run("photo.png", "gaps.npy", *arguments) == 0
    assert "gaps.npy: 6.25% of it is not a number > 0; filled" in capsys.readouterr().err
    np.save("whole.npy", 1 / DEPTH)
    assert run("photo.png", "whole.npy", *arguments[:-1], "want.png") == 0
    np.testing.assert_array_equal(pixels("out.png"), pixels("want.png"))


BAD_DEPTHS = {
    "wide.png": (lambda path: save_depth(path, np.eye(48, 60)), "got 60 x 48 pixels, wanted the photo's 64 x 48 or"),
    "turned.png": (lambda path: save_depth(path, DEPTH.T), "got 48 x 64 pixels, wanted the photo's 64 x 48 or"),
    "flat.png": (lambda path: save_depth(path, np.full((H, W), 9)), "got one disparity everywhere"),
    "none.npy": (lambda path: np.save(path, np.full((H, W), np.nan)), "got no disparity that is finite"),
    "rainbow.png": (
        lambda path: Image.fromarray(photo().pixels).save(path),
        "got shape (48, 64, 3) of uint8, wanted one number per pixel: grey, not colours that stand for depth",
    ),
    "cube.npy": (
        lambda path: np.save(path, np.zeros((2, H, W))),
        "got shape (2, 48, 64) of float64, wanted one number",
    ),
    "complex.npy": (lambda path: np.save(path, DEPTH.astype(complex)), "complex128, wanted one number per pixel"),
    "code.npy": (lambda path: np.save(path, np.array([{}]), allow_pickle=True), "cannot be read as depth"),
    "text.png": (lambda path: path.write_text("far away"), "cannot be read as depth, wanted an intact PNG"),
    "empty.png": (lambda path: path.write_text(""), "cannot be read as depth"),
    "text.npy": (lambda path: path.write_text("far away"), "cannot be read as depth"),
    "absent.png": (lambda path: None, "No such file"),
}


@pytest.mark.parametrize("name", BAD_DEPTHS)
def test_depth_maps_that_cannot_serve_are_named(run, tmp_path, capsys, name):
    make, message = BAD_DEPTHS[name]
    make(tmp_path / name)
    before = files(tmp_path)
    assert run("photo.png", name, "--aperture", 9, "--focus", 0, "-o", "out.png") == 1
    error = capsys.readouterr().err
    assert error.startswith("gkm render: error: ")
    assert name in error
    assert message in error
    assert len(error.splitlines()) == 1
    assert files(tmp_path) == before


def test_a_photo_that_cannot_serve_is_named(run, tmp_path, capsys):
    (tmp_path / "broken.png").write_bytes((tmp_path / "photo.png").read_bytes()[:400])
    assert run("broken.png", "depth.png", "--aperture", 9, "--focus", 0, "-o", "out.png") == 1
    assert "error: broken.png: " in capsys.readouterr().err
    assert not os.path.exists("out.png")


@pytest.mark.parametrize("source", ["photo.png", "depth.png"])
@pytest.mark.parametrize("way", ["same name", "hard link", "symbolic link"])
def test_an_input_is_never_replaced(render, tmp_path, capsys, source, way):
    before = files(tmp_path)
    if way == "hard link":
        os.link(source, "out.png")
    elif way == "symbolic link":
        os.symlink(source, "out.png")
    out = f"./{source}" if way == "same name" else "out.png"
    assert render("--focus", 0, "-o", out, "--overwrite") == 1
    assert "is an input, which is never replaced" in capsys.readouterr().err
    assert set(files(tmp_path).values()) == set(before.values())


@pytest.mark.parametrize("out", ["out.png", "out.gif"])
def test_existing_files_are_replaced_only_when_asked(render, tmp_path, capsys, out):
    sweep = ["--sweep", "--frames", 2] if out.endswith("gif") else ["--focus", 0]
    (tmp_path / out).write_text("something else")
    assert render(*sweep, "-o", out) == 1
    assert f"{out}: exists already; name another OUT, or give --overwrite" in capsys.readouterr().err
    assert (tmp_path / out).read_text() == "something else"
    assert render(*sweep, "-o", out, "--overwrite") == 0
    with Image.open(out) as image:
        assert image.size == (W, H)
    (tmp_path / f"folder{out}").mkdir()
    assert render(*sweep, "-o", f"folder{out}", "--overwrite") == 1


@pytest.mark.parametrize("out", ["out.png", "out.gif", "out.mp4"])
def test_a_full_disk_loses_nothing(render, tmp_path, capsys, monkeypatch, out):
    if out.endswith("mp4"):
        pytest.importorskip("av")

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / out).write_text("something else")
    before = files(tmp_path)
    monkeypatch.setattr(os, "fsync", full)
    sweep = ["--focus", 0] if out.endswith("png") else ["--sweep", "--frames", 2]
    assert render(*sweep, "-o", out, "--overwrite") == 1
    assert "No space left on device" in capsys.readouterr().err
    assert files(tmp_path) == before


def pull(path):
    """The frames of a video, and how many of them there are in a second."""
    if path.endswith(".gif"):
        with Image.open(path) as image:
            frames = []
            for number in range(image.n_frames):
                image.seek(number)
                frames.append(np.asarray(image.convert("RGB")).astype(int))
            return frames, 1000 / image.info.get("duration", 1)
    import av

    with av.open(path) as container:
        rate = float(container.streams.video[0].average_rate)
        return [
            frame.reformat(format="rgb24", src_colorspace="ITU709").to_ndarray().astype(int)
            for frame in container.decode(video=0)
        ], rate


def smooth(image):
    return cv2.blur(np.asarray(image).astype(np.float32), (5, 5))


@pytest.mark.parametrize("suffix", [".gif", ".mp4"])
def test_a_sweep_pulls_the_focus_from_one_to_the_other(render, suffix):
    if suffix == ".mp4":
        pytest.importorskip("av")
    assert render("--sweep", "--frames", 5, "--fps", 20, "-o", f"new/pull{suffix}") == 0
    frames, rate = pull(f"new/pull{suffix}")
    assert (len(frames), rate) == (5, 20)
    wanted = [255 * expected(photo().image, focus).permute(1, 2, 0).numpy() for focus in (0, 0.25, 0.5, 0.75, 1)]
    for number, frame in enumerate(frames):
        differences = [np.abs(smooth(frame) - smooth(want)).mean() for want in wanted]
        assert int(np.argmin(differences)) == number
        assert differences[number] < 5


def test_a_sweep_goes_where_it_is_told(render):
    assert render("--sweep", "--frames", 3, "--focus", "45,10", "--focus-to", 0.5, "-o", "pull.gif") == 0
    frames, rate = pull("pull.gif")
    assert (len(frames), rate) == (3, 25)  # 24 a second, in hundredths of a second
    for frame, focus in zip(frames, (1, 0.75, 0.5), strict=True):
        want = 255 * expected(photo().image, focus).permute(1, 2, 0).numpy()
        assert np.abs(smooth(frame) - smooth(want)).mean() < 3


def test_a_sweep_is_scaled_down_and_its_blur_with_it(render):
    assert render("--sweep", "--frames", 2, "--long-side", 32, "-o", "pull.gif") == 0
    light = to_linear(photo().image)[None]
    small = torch.nn.functional.interpolate(light, scale_factor=0.5, mode="bilinear", antialias=True)[0]
    for frame, focus in zip(pull("pull.gif")[0], (0.0, 1.0), strict=True):
        assert frame.shape == (24, 32, 3)
        differences = []
        for aperture in (4.5, 9.0, 2.0):
            want = to_srgb(render_light(small, disparity()[::2, ::2], focus=focus, aperture=aperture))
            differences.append(np.abs(smooth(frame) - smooth(255 * want.permute(1, 2, 0))).mean())
        assert differences[0] < 0.6 * min(differences[1:])


def test_edges_in_depth_stay_hard_when_a_sweep_is_scaled_down(render, monkeypatch):
    seen = []
    monkeypatch.setattr("gkm_ops.cli.render.render", lambda light, disparity, **_: seen.append(disparity) or light)
    assert render("--sweep", "--frames", 1, "--long-side", 50, "-o", "pull.gif") == 0
    assert seen[0].shape == (38, 50)
    assert seen[0].unique().tolist() == disparity().unique().tolist()


def test_a_profile_becomes_srgb_in_a_sweep(run):
    """A profile whose red and blue are exchanged, so that it shows."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = profile.replace(b"rXYZ", b"????").replace(b"bXYZ", b"rXYZ").replace(b"????", b"bXYZ")
    colours = np.empty((H, W, 3), np.uint8)
    colours[:] = 200, 100, 30
    photos.write("odd.png", Photo(colours, icc_profile=profile))
    assert run("odd.png", "depth.png", "--aperture", 9, "--sweep", "--frames", 2, "-o", "pull.gif") == 0
    frames, _ = pull("pull.gif")
    assert np.abs(frames[0] - [30, 100, 200]).max() <= 3
    photos.write("bad.png", Photo(colours, icc_profile=b"no profile"))
    assert run("bad.png", "depth.png", "--aperture", 9, "--sweep", "--frames", 2, "-o", "bad.gif") == 0
    assert np.abs(pull("bad.gif")[0][0] - [200, 100, 30]).max() <= 3


class TestVideo:
    def frames(self, height=21, width=35):
        for value in (0, 60, 120, 180, 240):
            frame = np.zeros((height, width, 3), np.uint8)
            frame[:] = value, 255 - value, 90
            frame[:10, :10] = 255 - value
            yield frame

    def test_an_mp4_plays_everywhere(self, tmp_path):
        av = pytest.importorskip("av")
        path = tmp_path / "clip.mp4"
        video.write(path, self.frames(), fps=23.976)
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            context = stream.codec_context
            assert (context.name, context.pix_fmt, stream.width, stream.height) == ("h264", "yuv420p", 36, 22)
            assert float(stream.average_rate) == pytest.approx(23.976, abs=1e-4)
            assert (context.color_primaries, context.color_trc, context.colorspace) == (1, 1, 1)
        frames, _ = pull(str(path))
        for got, want in zip(frames, self.frames(), strict=True):
            assert np.abs(got[14:20, 20:34] - want[14:20, 20:34]).max() <= 4
            assert np.abs(got[2:6, 2:6] - want[2:6, 2:6]).max() <= 6
        content = path.read_bytes()
        assert content.index(b"moov") < content.index(b"mdat")

    def test_a_gif_has_its_own_colours_in_every_frame(self, tmp_path):
        path = tmp_path / "clip.gif"
        video.write(path, self.frames(), fps=50)
        frames, rate = pull(str(path))
        assert rate == 50
        for got, want in zip(frames, self.frames(), strict=True):
            assert np.abs(got - want).max() <= 2
        with Image.open(path) as image:
            assert image.info["loop"] == 0

    def test_a_gif_has_no_bands(self, tmp_path):
        y, x = np.mgrid[:180, :240]
        slopes = np.stack([x, 1.3 * y, 120 + 100 * np.sin(x / 20 + y / 30)], 2).astype(np.uint8)
        video.write(tmp_path / "slopes.gif", [slopes], fps=20)
        (frame,), _ = pull(str(tmp_path / "slopes.gif"))
        assert np.abs(smooth(frame) - smooth(slopes)).mean() <= 2

    @pytest.mark.parametrize("suffix", [".gif", ".mp4"])
    @pytest.mark.parametrize("trouble", [ValueError("no more"), KeyboardInterrupt()])
    def test_what_fails_halfway_leaves_nothing(self, tmp_path, suffix, trouble):
        if suffix == ".mp4":
            pytest.importorskip("av")

        def frames():
            yield from self.frames()
            raise trouble

        path = tmp_path / f"clip{suffix}"
        path.write_text("something else")
        with pytest.raises(type(trouble)):
            video.write(path, frames(), fps=20, overwrite=True)
        assert files(tmp_path) == {path.name: b"something else"}

    def test_an_encoder_that_fails_leaves_nothing(self, tmp_path, monkeypatch):
        pytest.importorskip("av")
        monkeypatch.setattr(video, "_CRF", "no number")
        path = tmp_path / "clip.mp4"
        with pytest.raises(OSError, match="FFmpeg cannot write the video"):
            video.write(path, self.frames(), fps=20)
        assert files(tmp_path) == {}

    @pytest.mark.parametrize(
        ("frames", "message"),
        [
            ([], "frames: got none"),
            ([np.zeros((4, 4, 3))], "frames: got shape .* of float64"),
            ([np.zeros((4, 4), np.uint8)], r"frames: got shape \(4, 4\)"),
            ([np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5, 3), np.uint8)], "as large as the first"),
        ],
    )
    @pytest.mark.parametrize("suffix", [".gif", ".mp4"])
    def test_frames_that_cannot_serve_are_named(self, tmp_path, suffix, frames, message):
        if suffix == ".mp4":
            pytest.importorskip("av")
        with pytest.raises(ValueError, match=message):
            video.write(tmp_path / f"clip{suffix}", frames, fps=20)
        assert files(tmp_path) == {}

    @pytest.mark.parametrize(
        ("name", "fps", "message"),
        [
            ("a.gif", 51, "fps: got 51, wanted a number from 0.01 to 50 for a .gif"),
            ("a.mp4", 0, "fps: got 0, wanted"),
            ("a.mp4", float("nan"), "fps: got nan, wanted"),
            ("a.avi", 20, r"a\.avi: got the suffix '\.avi', wanted one of \.gif, \.mp4"),
        ],
    )
    def test_names_and_rates_that_cannot_serve_are_named(self, tmp_path, name, fps, message):
        with pytest.raises(ValueError, match=message):
            video.write(tmp_path / name, self.frames(), fps=fps)
        assert files(tmp_path) == {}

    def test_an_existing_file_is_left_alone(self, tmp_path):
        (tmp_path / "a.gif").write_text("something else")
        with pytest.raises(FileExistsError, match=r"a\.gif: exists already"):
            video.write(tmp_path / "a.gif", self.frames(), fps=20)
        assert files(tmp_path) == {"a.gif": b"something else"}


def test_without_an_encoder_of_mp4_it_is_told_what_to_install(render, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    before = files(tmp_path)
    assert render("--sweep", "--frames", 2, "-o", "pull.mp4") == 1
    assert 'pip install "gkm-ops[video]"; or name a .gif' in capsys.readouterr().err
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "out.png"], "--focus: got none, wanted a disparity from 0 to 1 or a pixel X,Y"),
        (["-o", "out.png", "--focus", "64,0"], "--focus: got the pixel 64,0, wanted one of the photo's 64 x 48"),
        (["-o", "out.png", "--focus", 1, "--fps", 3], "--fps: got it without --sweep"),
        (["-o", "out.png", "--focus", 1, "--long-side", 3], "--long-side: got it without --sweep"),
        (["-o", "out.mp4", "--focus", 1], "--output: got the suffix '.mp4', wanted one of .png"),
        (["-o", "out.png", "--sweep"], "out.png: got the suffix '.png', wanted one of .gif, .mp4"),
        (["-o", "out.gif", "--sweep", "--fps", 99], "fps: got 99, wanted a number from 0.01 to 50"),
        (["-o", "out.gif", "--sweep", "--focus-to", "0,48"], "--focus-to: got the pixel 0,48"),
        (["-o", "out.png", "--focus", 1, "--aperture", 1e300], "aperture: got 1e+300, wanted one that leaves the blur"),
        (["-o", "depth.png/out.png", "--focus", 1], "--output: [Errno"),
        (["-o", "out.png", "--focus", 1, "--max-megapixels", 0.001], "--max-megapixels"),
        (["-o", "out.png", "--focus", 1, "--device", "nonsense"], "--device: got 'nonsense', which torch cannot use"),
    ],
)
def test_options_that_do_not_fit_are_named(render, tmp_path, capsys, arguments, message):
    before = files(tmp_path)
    assert render(*arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("gkm render: error: ")
    assert message in error
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--focus", "1.5"], "got '1.5', wanted a disparity from 0 to 1, or a pixel X,Y"),
        (["--focus", "nan"], "got 'nan', wanted a disparity"),
        (["--focus", "3,-4"], "got '3,-4', wanted a disparity"),
        (["--aperture", "0"], "got '0', wanted a number > 0"),
        (["--aperture", "inf"], "got 'inf', wanted a number > 0"),
        (["--frames", "0"], "got '0', wanted an integer > 0"),
        (["--frames", "2.5"], "got '2.5', wanted an integer > 0"),
        (["--shape", "star"], "invalid choice: 'star'"),
    ],
)
def test_arguments_that_do_not_parse(render, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        render("-o", "out.png", *arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
