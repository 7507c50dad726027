"""Photos in and out of tensors, with bit depth, colour profile, EXIF and alpha kept.

Pillow reads and writes what has 8 bits, OpenCV PNGs of 16 bits, and tifffile reads TIFFs of 16 bits:
``pip install "gkm-ops[photos]"`` installs them.
"""

from __future__ import annotations

import importlib
import io
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gkm_ops.errors import described
from gkm_ops.files import replacing

try:
    from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError
except ImportError as error:
    raise ImportError('photos are read with Pillow: pip install "gkm-ops[photos]"') from error

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF", ".webp": "WEBP"}
MAX_MEGAPIXELS = 100.0
QUALITY = 95  # of JPEG and WebP

# What a photo's TIFF says about the photo, and not about how its pixels lie in the file.
_DESCRIPTIVE = {
    *("ImageDescription", "Make", "Model", "Orientation", "XResolution", "YResolution", "ResolutionUnit", "Software"),
    *("DateTime", "Artist", "XMLPacket", "Copyright", "IPTCNAA", "ExifOffset", "GPSInfo"),
}
_WANTED = (
    "wanted grey or RGB, with or without alpha, in unsigned numbers of 8 bits or (PNG, TIFF) 16, but a TIFF's grey of "
    "16 without alpha"
)
_NUMBERS = {1: "unsigned", 2: "signed", 3: "floating-point", 5: "complex", 6: "complex"}  # by a TIFF's sample format
_opening = threading.Lock()


@dataclass(frozen=True)
class Photo:
    """A photo's pixels, and what else its file holds.

    Attributes:
        pixels: ``[H, W, C]``, uint8 or uint16, the right way up; C is 1 (grey), 2 (grey and alpha), 3 (red,
            green, blue) or 4 (those and alpha).
        exif: EXIF data as Pillow serialises it, its orientation 1; empty for none.
        icc_profile: the colour profile; None for none.

    Example:
        >>> photo = Photo(np.zeros((20, 30, 4), np.uint16))
        >>> photo.image.shape, photo.with_image(photo.image + 0.5).pixels[0, 0]
        (torch.Size([3, 20, 30]), array([32768, 32768, 32768,     0], dtype=uint16))
    """

    pixels: NDArray[Any]
    exif: bytes = b""
    icc_profile: bytes | None = None

    @property
    def image(self) -> Tensor:
        """The colours, without alpha: ``[3, H, W]``, float32 in [0, 1]; grey is three equal colours."""
        colours = torch.from_numpy(self.pixels[..., : self._colours].astype(np.float32))
        colours /= np.iinfo(self.pixels.dtype).max
        return colours.permute(2, 0, 1).expand(3, -1, -1).contiguous()

    def with_image(self, image: Tensor) -> Photo:
        """The photo with other colours, in its own bit depth; grey stays grey, as the mean of the colours.

        Args:
            image: ``[3, H, W]``, floating point, clamped to [0, 1].

        Raises:
            ValueError: another shape, or NaN.
        """
        wanted = (3, *self.pixels.shape[:2])
        if tuple(image.shape) != wanted:
            raise ValueError(f"image: got shape {tuple(image.shape)}, wanted {wanted}")
        if image.isnan().any():
            raise ValueError("image: got NaN, wanted numbers in [0, 1]")
        colours = image.detach().cpu().float().permute(1, 2, 0)
        if self._colours == 1:
            colours = colours.mean(2, keepdim=True)
        pixels = np.array(self.pixels)
        limit = np.iinfo(pixels.dtype).max
        pixels[..., : self._colours] = (colours.clamp(0, 1) * limit).round().numpy().astype(pixels.dtype)
        return replace(self, pixels=pixels)

    @property
    def _colours(self) -> int:
        return 1 if self.pixels.shape[2] < 3 else 3


def find(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """The photos in files and folders: a folder gives those directly in it, by name; a file gives itself.

    Hidden files in a folder are a file manager's own.

    Args:
        paths: files and folders. Whether a file is there and holds a photo is for `read` to say.

    Raises:
        OSError: a folder that cannot be listed.
        ValueError: a folder without photos.

    Example:
        >>> find(["holiday.png", "beach.jpg"])
        [PosixPath('holiday.png'), PosixPath('beach.jpg')]
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if not path.is_dir():
            found.append(path)
            continue
        shown = (file for file in path.iterdir() if not file.name.startswith("."))
        within = sorted(file for file in shown if file.suffix.lower() in FORMATS and file.is_file())
        if not within:
            raise ValueError(f"{path}: got a folder without photos, wanted files that end in {', '.join(FORMATS)}")
        found += within
    return found


def size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """How many pixels a photo is high and wide, the right way up, without decoding them.

    EXIF data that a PNG has behind its pixels is not seen.

    Raises:
        OSError, ValueError: as `read`, but for damage to the pixels.

    Example:
        >>> write("small.png", torch.zeros(3, 20, 30))
        >>> size("small.png")
        (20, 30)
    """
    with _named(path), Path(path).open("rb") as file, _opened(file) as image:
        _check_kind(image, _bits(image, file), MAX_MEGAPIXELS)
        width, height = image.size
        if isinstance(image, TiffImagePlugin.TiffImageFile):  # which some versions of Pillow call turned by now
            width, height = (image.tag_v2[tag] for tag in (TiffImagePlugin.IMAGEWIDTH, TiffImagePlugin.IMAGELENGTH))
        exif = Image.Image.getexif(image)  # a PNG's own would decode it to look behind its pixels
        turned = exif.get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
    return (width, height) if turned else (height, width)


def check_proportions(path: Path, map_size: tuple[int, int], photo_size: tuple[int, int]) -> None:
    """Refuse a depth map ``(H, W)`` of other proportions than the photo's; any size will do.

    Raises:
        ValueError: they differ by more than rounding does; it names the map's file.

    Example:
        >>> check_proportions(Path("depth.png"), (240, 320), (481, 640))
        >>> check_proportions(Path("depth.png"), (320, 240), (480, 640))
        Traceback (most recent call last):
        ValueError: depth.png: got 240 x 320 pixels, wanted the photo's 640 x 480 or its proportions
    """
    (h, w), (H, W) = map_size, photo_size
    if abs(h * W - w * H) >= max(H, W):  # a pixel of the map more or less is rounding
        raise ValueError(f"{path}: got {w} x {h} pixels, wanted the photo's {W} x {H} or its proportions")


def read(path: str | os.PathLike[str], *, max_megapixels: float = MAX_MEGAPIXELS) -> Photo:
    """Read a photo: PNG, JPEG, TIFF or WebP of 8 or (PNG, TIFF) 16 bits, grey or RGB, with or without alpha.

    A palette is read as the colours it stands for, and colours that a TIFF's alpha has been multiplied into without it.
    A TIFF's fourth number of no stated meaning is left out. Not read is a TIFF's grey of 16 bits with alpha.

    Args:
        path: the file. Its content says which format it is.
        max_megapixels: a larger photo is refused before its pixels are decoded.

    Raises:
        OSError: there is no such file, or it cannot be read.
        ValueError: not a photo, a damaged or too large one, or a kind that is not supported (CMYK, floating
            point, several pictures in one file).

    Example:
        >>> read("holiday.png").image.shape  # doctest: +SKIP
        torch.Size([3, 1120, 1680])
    """
    with _named(path), Path(path).open("rb") as file, _opened(file) as image:
        bits = _bits(image, file)
        _check_kind(image, bits, max_megapixels)
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        if image.format == "TIFF" and bits == 16:
            pixels = _tiff_of_16_bits(file)
        else:
            pixels = np.asarray(_expanded(image))
            if image.format == "TIFF":
                orientation = 1  # Pillow has turned it
            elif bits == 16:
                pixels = _png_of_16_bits(image, file)
        # Only now: of a TIFF, Pillow turns the pixels by the same data that this changes.
        exif, icc_profile = _exif(image), image.info.get("icc_profile")
    return Photo(_upright(pixels.reshape(*pixels.shape[:2], -1), orientation), exif, icc_profile)


@contextmanager
def _named(path: str | os.PathLike[str]) -> Iterator[None]:
    """An error in reading a file, within it, names it: the system's is an OSError, all others are ValueErrors."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            raise
        raise ValueError(f"{path}: {error}") from error
    except ImportError:
        raise
    except Exception as error:  # decoders raise all sorts of things when a file is damaged
        raise ValueError(f"{path}: {str(error) or type(error).__name__}") from error


def write(path: str | os.PathLike[str], photo: Photo | Tensor, *, overwrite: bool = False) -> None:
    """Write a photo, whole or not at all, in the format of the file's suffix.

    TIFFs are not compressed; JPEG (4:4:4) and WebP are written at quality 95. Grey of 16 bits with alpha becomes
    colours with alpha, as OpenCV and Pillow know no other.

    Args:
        path: ends in .png, .jpg, .jpeg, .tif, .tiff or .webp.
        photo: or an image ``[3, H, W]``, clamped to [0, 1], to be written in 8 bits.
        overwrite: whether to replace a file that exists.

    Raises:
        FileExistsError: the file exists and ``overwrite`` is not set.
        OSError: it cannot be written; what was at ``path`` is as it was.
        TypeError: neither a Photo nor a floating-point tensor.
        ValueError: another suffix or shape, or a suffix whose format cannot hold the photo.

    Example:
        >>> write("grey.png", torch.full((3, 20, 30), 0.5))
    """
    path = Path(path)
    if isinstance(photo, Tensor) and photo.is_floating_point():
        if photo.dim() != 3:
            raise ValueError(f"photo: got shape {tuple(photo.shape)}, wanted [3, H, W]")
        photo = Photo(np.zeros((*photo.shape[1:], 3), np.uint8)).with_image(photo)
    if not isinstance(photo, Photo):
        raise TypeError(f"photo: got {described(photo)}, wanted a Photo, or an image of floating point in [0, 1]")
    check(path, photo)
    content = _encoded(photo, FORMATS[path.suffix.lower()])
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path}: exists already")
    with replacing(path) as file:
        file.write(content)


def check(path: Path, photo: Photo) -> None:
    """What `write` says of a name and the kind of photo, without writing.

    Raises:
        ValueError: another suffix, or one whose format cannot hold the photo.
    """
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise ValueError(f"{path}: got the suffix {path.suffix!r}, wanted one of {', '.join(FORMATS)}")
    bits, channels = 8 * photo.pixels.itemsize, photo.pixels.shape[2]
    if kind not in ("PNG", "TIFF") and (bits == 16 or (kind == "JPEG" and channels in (2, 4))):
        got = f"{bits} bits, {channels} channels"
        raise ValueError(f"{path}: got a photo with {got}, which a {kind} cannot hold; name a .png or .tif")


@contextmanager
def _opened(file: BinaryIO) -> Iterator[Image.Image]:
    """Pillow's view of a file, without Pillow's own limit, which `read` has a choice in place of."""
    with _opening:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = Image.open(file, formats=sorted(set(FORMATS.values())))
        except UnidentifiedImageError as error:
            raise ValueError(_unidentified(file)) from error
        finally:
            Image.MAX_IMAGE_PIXELS = limit
    with image:
        yield image


def _unidentified(file: BinaryIO) -> str:
    """What to say of a file that Pillow does not open."""
    file.seek(0)
    try:
        header = file.read(8)
        if header[2] == 43:  # a BigTIFF
            header += file.read(8)
        tags = TiffImagePlugin.ImageFileDirectory_v2(header)
        file.seek(tags.next)
        tags.load(file)
        return f"got {_kind_of_tiff(tags)}, {_WANTED}; convert it first"
    except Exception:  # no TIFF, or a damaged one
        return f"cannot identify the file as a PNG, JPEG, TIFF or WebP; {_WANTED}"


def _kind_of_tiff(tags: TiffImagePlugin.ImageFileDirectory_v2) -> str:
    bits = max(tags[TiffImagePlugin.BITSPERSAMPLE])
    numbers = _NUMBERS.get(_sample_format(tags), "undefined")
    return f"a TIFF of {bits}-bit {numbers} numbers, {tags.get(TiffImagePlugin.SAMPLESPERPIXEL, 1)} a pixel"


def _sample_format(tags: TiffImagePlugin.ImageFileDirectory_v2) -> int:
    return max(tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,)))


def _bits(image: Image.Image, file: BinaryIO) -> int:
    """Bits per sample as the file has them: of 16-bit colours Pillow's modes tell nothing."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return max(image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (1,)))
    if image.format == "PNG":
        file.seek(24)  # signature (8), length and name of the first chunk (8), width and height (8)
        return file.read(1)[0]
    return 8


def _check_kind(image: Image.Image, bits: int, max_megapixels: float) -> None:
    megapixels = image.width * image.height / 1e6
    if megapixels > max_megapixels:
        raise ValueError(
            f"got {megapixels:.6g} megapixels, wanted at most {max_megapixels:.6g}; to allow more, set max_megapixels "
            "(--max-megapixels)"
        )
    # Pillow knows neither sample format nor inversion of what it calls I;16.
    odd = image.mode.startswith("I;16") and bits != 16
    if image.mode not in ("1", "P", "L", "LA", "RGB", "RGBA", "I;16", "I;16L", "I;16B") or odd:
        got = f"a picture of mode {image.mode} with {bits} bits"
        if isinstance(image, TiffImagePlugin.TiffImageFile) and _sample_format(image.tag_v2) != 1:
            got = _kind_of_tiff(image.tag_v2)
        raise ValueError(f"got {got}, {_WANTED}; convert it first")
    if "transparency" in image.info and bits == 16:
        raise ValueError("got a transparent colour of 16 bits, wanted an alpha channel or none; convert it first")
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # an MPO is a JPEG with extras behind it
        raise ValueError(f"got {frames} pictures in one file, wanted one; split it first")


def _expanded(image: Image.Image) -> Image.Image:
    """Palettes and transparent colours as colours and alpha, black and white as grey."""
    if "transparency" in image.info:
        return image.convert("LA" if image.mode in ("1", "L") else "RGBA")
    return image.convert({"P": "RGB", "1": "L"}.get(image.mode, image.mode))


def _png_of_16_bits(image: Image.Image, file: BinaryIO) -> NDArray[Any]:
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)
    cv2 = _imported("cv2", "opencv-python-headless")
    file.seek(0)
    pixels = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ValueError("the PNG is damaged: OpenCV cannot decode it")
    order = {"RGB": [2, 1, 0], "RGBA": [2, 1, 0, 3], "LA": [0, 3]}[image.mode]
    return pixels[..., order]


def _tiff_of_16_bits(file: BinaryIO) -> NDArray[Any]:
    tifffile = _imported("tifffile", "tifffile imagecodecs")
    file.seek(0)
    with tifffile.TiffFile(file) as tiff:
        page = tiff.pages[0]
        if page.photometric not in (tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.MINISBLACK):
            raise ValueError(f"got a TIFF of kind {page.photometric.name}, wanted RGB or MINISBLACK; convert it first")
        pixels = page.asarray()
        pixels = np.moveaxis(pixels, 0, -1) if page.axes == "SYX" else pixels
        extra = page.extrasamples[:1]
    if extra == (tifffile.EXTRASAMPLE.UNSPECIFIED,):
        return pixels[..., :3]  # what it is nobody knows; nor does Pillow read it from 8 bits
    return _divided(pixels) if extra == (tifffile.EXTRASAMPLE.ASSOCALPHA,) else pixels


def _divided(pixels: NDArray[Any]) -> NDArray[Any]:
    """Colours into which alpha has been multiplied without it; of what is wholly transparent they are black."""
    largest = np.float32(np.iinfo(pixels.dtype).max)
    alpha, colours = pixels[..., 3:], pixels[..., :3] * largest
    np.divide(colours, alpha, out=colours, where=alpha > 0)
    return np.concatenate((colours.clip(0, largest).round().astype(pixels.dtype), pixels[..., 3:]), -1)


def _imported(module: str, packages: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f'this photo wants {packages}: pip install "gkm-ops[photos]"') from error


def _upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turned and mirrored as EXIF's orientation says: 5 to 8 are transposed, the rest is flips."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _exif(image: Image.Image) -> bytes:
    exif = image.getexif()
    if image.format == "TIFF":
        for tag in [tag for tag in exif if ExifTags.TAGS.get(tag) not in _DESCRIPTIVE]:
            del exif[tag]
    if not exif:
        return b""
    exif[ExifTags.Base.Orientation] = 1
    return exif.tobytes()


def _encoded(photo: Photo, kind: str) -> bytes:
    bits, channels = 8 * photo.pixels.itemsize, photo.pixels.shape[2]
    if bits == 16 and channels == 2:
        channels, photo = 4, replace(photo, pixels=photo.pixels[..., [0, 0, 0, 1]])
    if kind == "TIFF":
        return _tiff(photo)
    if bits == 16 and channels > 1:
        return _png(photo)
    options: dict[str, dict[str, Any]] = {
        "JPEG": {"quality": QUALITY, "subsampling": "4:4:4"},
        "WEBP": {"quality": QUALITY, "exact": True},  # colours where nothing shows are kept, too
    }
    content = io.BytesIO()
    pixels = photo.pixels[..., 0] if channels == 1 else photo.pixels
    Image.fromarray(pixels).save(content, kind, exif=photo.exif, icc_profile=photo.icc_profile, **options.get(kind, {}))
    return content.getvalue()


def _png(photo: Photo) -> bytes:
    """A PNG of 16-bit colours."""
    cv2 = _imported("cv2", "opencv-python-headless")
    order = {3: [2, 1, 0], 4: [2, 1, 0, 3]}[photo.pixels.shape[2]]
    metadata = {}
    if photo.exif:
        metadata[cv2.IMAGE_METADATA_EXIF] = photo.exif.removeprefix(b"Exif\0\0")
    if photo.icc_profile:
        metadata[cv2.IMAGE_METADATA_ICCP] = photo.icc_profile
    values = [np.frombuffer(value, np.uint8) for value in metadata.values()]
    pixels = np.ascontiguousarray(photo.pixels[..., order])
    done, content = cv2.imencodeWithMetadata(".png", pixels, list(metadata), values)
    if not done:
        raise ValueError("OpenCV cannot encode the PNG")
    return bytes(content)


def _tiff(photo: Photo) -> bytes:
    """A TIFF of one uncompressed strip behind its directory: Pillow knows no 16-bit colours, but all of the tags."""
    pixels = np.ascontiguousarray(photo.pixels.astype(photo.pixels.dtype.newbyteorder("<")))
    height, width, channels = pixels.shape
    if pixels.nbytes >= 2**32 - 2**20:
        raise ValueError(f"got {pixels.nbytes / 2**30:.1f} GiB of pixels, a TIFF holds 4; name a .png")
    tags = TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II")
    exif = Image.Exif()
    exif.load(photo.exif)
    for tag, value in exif.items():
        tags[tag] = exif.get_ifd(tag) if tag in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo) else value
    tags[TiffImagePlugin.IMAGEWIDTH] = width
    tags[TiffImagePlugin.IMAGELENGTH] = height
    tags[TiffImagePlugin.BITSPERSAMPLE] = (8 * pixels.itemsize,) * channels
    tags[TiffImagePlugin.COMPRESSION] = 1
    tags[TiffImagePlugin.PHOTOMETRIC_INTERPRETATION] = 1 if channels < 3 else 2
    tags[TiffImagePlugin.SAMPLESPERPIXEL] = channels
    tags[TiffImagePlugin.ROWSPERSTRIP] = height
    tags[TiffImagePlugin.STRIPOFFSETS] = 0  # from the end of the directory
    tags[TiffImagePlugin.STRIPBYTECOUNTS] = pixels.nbytes
    if channels in (2, 4):
        tags[TiffImagePlugin.EXTRASAMPLES] = 2  # alpha, not multiplied into the colours
    if photo.icc_profile:
        tags[TiffImagePlugin.ICCPROFILE] = photo.icc_profile
    content = io.BytesIO()
    tags.save(content)
    content.write(pixels.tobytes())
    return content.getvalue()
