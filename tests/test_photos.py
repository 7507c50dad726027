"""Photos through files: pixels, depth, profile, EXIF and alpha, all orientations, and files that are not photos."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest
import torch

pytest.importorskip("PIL")
pytest.importorskip("cv2")
pytest.importorskip("tifffile")
import tifffile
from PIL import ExifTags, Image, ImageCms, TiffImagePlugin

from gkm_ops import photos
from gkm_ops.photos import Photo

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
LOSSLESS = [(".png", 8), (".png", 16), (".tif", 8), (".tiff", 16)]


def pixels(channels: int, bits: int, height: int = 5, width: int = 7) -> np.ndarray:
    drawn = np.random.default_rng(channels).integers(0, 2**bits, (height, width, channels))
    return drawn.astype(f"uint{bits}")


def exif(orientation: int = 1) -> bytes:
    data = Image.Exif()
    data[ExifTags.Base.Orientation] = orientation
    data[ExifTags.Base.Make] = "Maker"
    data.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExposureTime] = TiffImagePlugin.IFDRational(1, 4)
    return data.tobytes()


def said_by(content: bytes) -> tuple[int, str, float]:
    data = Image.Exif()
    data.load(content)
    exposure = data.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExposureTime]
    return data[ExifTags.Base.Orientation], data[ExifTags.Base.Make], float(exposure)


@pytest.mark.parametrize(("suffix", "bits"), LOSSLESS)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_lossless_formats_return_everything(tmp_path, suffix, bits, channels):
    path = tmp_path / f"photo{suffix}"
    photos.write(path, Photo(pixels(channels, bits), exif(), PROFILE))
    got = photos.read(path)
    np.testing.assert_array_equal(got.pixels, pixels(channels, bits))
    assert got.pixels.dtype == f"uint{bits}"
    assert got.icc_profile == PROFILE
    assert said_by(got.exif) == (1, "Maker", 0.25)


def test_other_readers_agree_on_16_bit_tiffs(tmp_path):
    """The directory is written by us, so others have to understand it."""
    photos.write(tmp_path / "photo.tif", Photo(pixels(4, 16), exif(), PROFILE))
    with tifffile.TiffFile(tmp_path / "photo.tif") as tiff:
        page = tiff.pages[0]
        np.testing.assert_array_equal(page.asarray(), pixels(4, 16))
        assert page.extrasamples == (tifffile.EXTRASAMPLE.UNASSALPHA,)
        assert page.iccprofile == PROFILE
        assert page.tags["Make"].value == "Maker"
        assert page.tags["ExifTag"].value["ExposureTime"] == (1, 4)


@pytest.mark.parametrize(("suffix", "channels"), [(".jpg", 1), (".jpeg", 3), (".webp", 3), (".webp", 4)])
def test_lossy_formats_keep_the_picture(tmp_path, suffix, channels):
    path = tmp_path / f"photo{suffix}"
    smooth = np.linspace(0, 255, 32 * 48 * channels).reshape(32, 48, channels).astype(np.uint8)
    photos.write(path, Photo(smooth, exif(), PROFILE))
    got = photos.read(path)
    assert got.pixels.shape == smooth.shape
    assert np.abs(got.pixels.astype(int) - smooth).max() <= 6
    assert got.icc_profile == PROFILE
    assert said_by(got.exif) == (1, "Maker", 0.25)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("suffix", "bits"), [*LOSSLESS, (".jpg", 8), (".webp", 8)])
def test_orientation_is_applied_once(tmp_path, suffix, bits, orientation):
    """A bright corner comes to lie where EXIF says that it does."""
    lying = np.zeros((16, 32, 3), f"uint{bits}")
    lying[:8, :8] = np.iinfo(lying.dtype).max
    path = tmp_path / f"photo{suffix}"
    photos.write(path, Photo(lying, exif(orientation)))
    got = photos.read(path)

    assert got.pixels.shape == ((16, 32, 3) if orientation < 5 else (32, 16, 3))
    assert photos.size(path) == got.pixels.shape[:2]
    bottom, right = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    corner = got.pixels[-4:] if bottom else got.pixels[:4]
    corner = corner[:, -4:] if right else corner[:, :4]
    assert corner.min() > 0.9 * np.iinfo(lying.dtype).max
    assert got.pixels.mean() < 0.2 * np.iinfo(lying.dtype).max
    assert said_by(got.exif) == (1, "Maker", 0.25)

    photos.write(tmp_path / f"again{suffix}", got)
    assert photos.read(tmp_path / f"again{suffix}").pixels.shape == got.pixels.shape


@pytest.mark.parametrize("compression", ["lzw", "zlib"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_compressed_and_planar_tiffs(tmp_path, compression, planar):
    pytest.importorskip("imagecodecs")
    want = pixels(3, 16)
    stored = want if planar == "contig" else np.moveaxis(want, -1, 0)
    tifffile.imwrite(
        tmp_path / "photo.tif",
        stored,
        byteorder=">",
        photometric="rgb",
        planarconfig=planar,
        compression=compression,
        predictor=True,
    )
    np.testing.assert_array_equal(photos.read(tmp_path / "photo.tif").pixels, want)


def test_alpha_that_is_multiplied_into_the_colours_of_a_tiff(tmp_path):
    """Of 16 bits as of 8, which Pillow reads."""
    straight = np.array([[[60000, 300, 40000, 65535], [50000, 20000, 10000, 26214], [0, 0, 0, 0]]], np.uint16)
    stored = straight.copy()
    stored[..., :3] = (straight[..., :3] * (straight[..., 3:] / 65535)).round()
    path = tmp_path / "photo.tif"
    tifffile.imwrite(path, stored, photometric="rgb", extrasamples=["assocalpha"])
    got = photos.read(path)
    assert np.abs(got.pixels.astype(int) - straight).max() <= 2
    photos.write(tmp_path / "again.tif", got)
    np.testing.assert_array_equal(photos.read(tmp_path / "again.tif").pixels, got.pixels)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
def test_a_size_takes_no_pixels(tmp_path, suffix):
    path = tmp_path / f"photo{suffix}"
    photos.write(path, Photo(np.random.default_rng(0).integers(0, 256, (160, 200, 3)).astype(np.uint8)))
    if suffix != ".webp":  # which Pillow wants whole
        path.write_bytes(path.read_bytes()[:2000])
        with pytest.raises(ValueError, match=path.name):
            photos.read(path)
    assert photos.size(path) == (160, 200)


@pytest.mark.parametrize("bits", [8, 16])
def test_what_a_tiff_has_beside_colours_and_does_not_call_alpha_is_left_out(tmp_path, bits):
    path, stored = tmp_path / "photo.tif", pixels(4, bits)
    tifffile.imwrite(path, stored, photometric="rgb", extrasamples=["unspecified"])
    np.testing.assert_array_equal(photos.read(path).pixels, stored[..., :3])


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_grey_with_alpha_of_16_bits(tmp_path, suffix):
    """It is written as colours with alpha."""
    want, path = pixels(2, 16), tmp_path / f"photo{suffix}"
    photos.write(path, Photo(want))
    np.testing.assert_array_equal(photos.read(path).pixels, want[..., [0, 0, 0, 1]])


@pytest.mark.parametrize(
    ("photo", "message"),
    [
        ("photo", "photo: got a str, wanted a Photo"),
        (torch.full((3, 4, 5), 128, dtype=torch.uint8), "photo: got a torch.uint8 tensor"),
        (torch.rand(4, 5), "photo: got shape"),
    ],
)
def test_what_is_no_photo_is_refused(tmp_path, photo, message):
    with pytest.raises((TypeError, ValueError), match=message):
        photos.write(tmp_path / "photo.png", photo)
    assert not list(tmp_path.iterdir())


def test_image_is_scaled_by_depth_and_grey_is_three_colours():
    photo = Photo(np.array([[[0], [32768], [65535]]], np.uint16))
    want = torch.tensor([0, 32768 / 65535, 1]).expand(3, 1, 3)
    assert torch.equal(photo.image, want)
    assert Photo(np.full((2, 2, 4), 255, np.uint8)).image.eq(1).all()


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_with_image_returns_the_pixels_it_came_from(bits, channels):
    photo = Photo(pixels(channels, bits), b"exif", b"icc")
    got = photo.with_image(photo.image)
    np.testing.assert_array_equal(got.pixels, photo.pixels)
    assert (got.exif, got.icc_profile) == (photo.exif, photo.icc_profile)


def test_with_image_rounds_clamps_averages_grey_and_passes_alpha():
    image = torch.tensor([0.1, 0.2, 0.9]).view(3, 1, 1)
    assert Photo(np.zeros((1, 1, 2), np.uint8)).with_image(image).pixels.tolist() == [[[102, 0]]]
    beyond = torch.tensor([-0.5, 1.5, 0.4999]).view(3, 1, 1)
    assert Photo(np.full((1, 1, 4), 7, np.uint16)).with_image(beyond).pixels.tolist() == [[[0, 65535, 32761, 7]]]


@pytest.mark.parametrize(
    ("image", "message"),
    [(torch.zeros(3, 4, 6), r"got shape \(3, 4, 6\), wanted \(3, 4, 5\)"), (torch.full((3, 4, 5), torch.nan), "NaN")],
)
def test_with_image_refuses(image, message):
    with pytest.raises(ValueError, match=message):
        Photo(np.zeros((4, 5, 3), np.uint8)).with_image(image)


def test_find_sorts_folders_and_keeps_files(tmp_path):
    for name in ("b.PNG", "a.jpeg", "notes.txt", "c.webp", "._b.png"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    other = tmp_path / "absent.raw"
    got = photos.find([other, tmp_path])
    assert [path.name for path in got] == ["absent.raw", "a.jpeg", "b.PNG", "c.webp"]
    with pytest.raises(ValueError, match="a folder without photos"):
        photos.find([tmp_path / "folder.png"])


def odd(path, kind):
    if kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("not a photo")
    elif kind in ("truncated 8", "truncated 16"):
        photos.write(path, Photo(pixels(3, int(kind.split()[1]), 64, 64)))
        path.write_bytes(path.read_bytes()[:-2000])
    elif kind == "two pages":
        page = Image.new("RGB", (4, 4))
        page.save(path, "TIFF", save_all=True, append_images=[page])
    elif kind == "transparent colour of 16 bits":
        Image.fromarray(np.zeros((4, 4), np.uint16)).save(path, transparency=0)
    elif kind == "float":
        Image.new("F", (4, 4)).save(path, "TIFF")
    else:
        Image.new(kind, (4, 4)).save(path, "TIFF" if kind == "CMYK" else "PNG")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("empty", "cannot identify"),
        ("text", "cannot identify"),
        ("truncated 8", "truncated"),
        ("truncated 16", "truncated"),
        ("two pages", "got 2 pictures in one file"),
        ("transparent colour of 16 bits", "got a transparent colour of 16 bits"),
        ("float", "got a TIFF of 32-bit floating-point numbers, 1 a pixel, wanted grey or RGB"),
        ("CMYK", "mode CMYK with 8 bits, wanted grey or RGB"),
    ],
)
def test_files_that_are_no_photos_are_named(tmp_path, kind, message):
    path = tmp_path / "odd.png"
    odd(path, kind)
    with pytest.raises(ValueError, match=message) as caught:
        photos.read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("layout", [{}, {"bigtiff": True}, {"byteorder": ">"}], ids=str)
@pytest.mark.parametrize(
    ("dtype", "shape", "numbers"),
    [
        ("f4", (8, 9, 3), "32-bit floating-point numbers, 3 a pixel"),
        ("f8", (8, 9), "64-bit floating-point numbers, 1 a pixel"),
        ("u4", (8, 9, 3), "32-bit unsigned numbers, 3 a pixel"),
        ("i2", (8, 9), "16-bit signed numbers, 1 a pixel"),
    ],
)
def test_tiffs_of_other_numbers_are_called_what_they_are(tmp_path, dtype, shape, numbers, layout):
    path = tmp_path / "photo.tif"
    photometric = "rgb" if len(shape) == 3 else "minisblack"
    tifffile.imwrite(path, np.zeros(shape, dtype), photometric=photometric, **layout)
    with pytest.raises(ValueError, match=rf"photo\.tif: got a TIFF of {numbers}, wanted .* in unsigned numbers of 8"):
        photos.read(path)


@pytest.mark.parametrize("mode", ["P", "1"])
@pytest.mark.parametrize("transparent", [False, True])
def test_palettes_and_transparent_colours_are_read_as_what_they_show(tmp_path, mode, transparent):
    path = tmp_path / "photo.png"
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)).quantize(8)
    picture = picture if mode == "P" else picture.convert("1")
    picture.save(path, **({"transparency": 0} if transparent else {}))
    with Image.open(path) as image:
        want = np.asarray(image.convert("RGBA" if transparent else "RGB"))
    got = photos.read(path)
    assert got.pixels.shape[2] == {"P": 3, "1": 1}[mode] + transparent
    np.testing.assert_array_equal(np.moveaxis(want[..., :3], -1, 0), (got.image * 255).round().byte().numpy())
    if transparent:
        np.testing.assert_array_equal(got.pixels[..., -1], want[..., 3])


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("damaged", range(0, 400, 7))
def test_damage_anywhere_raises_nothing_else(tmp_path, damaged):
    path = tmp_path / "photo.tif"
    photos.write(path, Photo(pixels(3, 16), exif(), PROFILE))
    content = bytearray(path.read_bytes())
    content[damaged % len(content)] ^= 0xFF
    path.write_bytes(content)
    try:
        assert photos.read(path).pixels.ndim == 3
    except ValueError as error:
        assert str(path) in str(error)  # noqa: PT017  most damage does no harm


def test_a_missing_file_is_an_oserror(tmp_path):
    with pytest.raises(FileNotFoundError):
        photos.read(tmp_path / "absent.png")


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_huge_photo_is_refused_before_it_is_decoded(tmp_path, suffix):
    path = tmp_path / f"huge{suffix}"
    photos.write(path, Photo(np.zeros((30, 40, 3), np.uint8)))
    limit = Image.MAX_IMAGE_PIXELS
    with pytest.raises(ValueError, match=r"got 0.00\d+ megapixels, wanted at most 0.001; .*--max-megapixels"):
        photos.read(path, max_megapixels=0.001)
    assert photos.read(path, max_megapixels=0.0012).pixels.shape == (30, 40, 3)
    assert limit == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize(
    ("name", "photo", "message"),
    [
        ("photo.bmp", Photo(pixels(3, 8)), "got the suffix '.bmp'"),
        ("photo.jpg", Photo(pixels(3, 16)), "16 bits, 3 channels, which a JPEG cannot hold"),
        ("photo.jpg", Photo(pixels(4, 8)), "8 bits, 4 channels"),
        ("photo.webp", Photo(pixels(1, 16)), "which a WEBP cannot hold"),
    ],
)
def test_formats_that_cannot_hold_a_photo_refuse_it(tmp_path, name, photo, message):
    with pytest.raises(ValueError, match=message):
        photos.write(tmp_path / name, photo)
    assert not list(tmp_path.iterdir())


def test_an_image_is_written_in_8_bits(tmp_path):
    photos.write(tmp_path / "image.png", torch.tensor([-1, 0.5, 2]).view(3, 1, 1))
    assert photos.read(tmp_path / "image.png").pixels.tolist() == [[[0, 128, 255]]]


def test_nothing_is_overwritten_unasked(tmp_path):
    path = tmp_path / "photo.png"
    path.write_text("something else")
    with pytest.raises(FileExistsError):
        photos.write(path, Photo(pixels(3, 8)))
    assert path.read_text() == "something else"
    photos.write(path, Photo(pixels(3, 8)), overwrite=True)
    np.testing.assert_array_equal(photos.read(path).pixels, pixels(3, 8))


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch, failing):
    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "photo.png"
    path.write_text("something else")
    monkeypatch.setattr(os, failing, full)
    with pytest.raises(OSError, match="No space left"):
        photos.write(path, Photo(pixels(3, 8)), overwrite=True)
    assert path.read_text() == "something else"
    assert list(tmp_path.iterdir()) == [path]
