"""Render depth of field into a sharp photo by its depth map, or a focus pull through it as GIF or MP4."""

from __future__ import annotations

import argparse
import io
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from gkm_ops.cli import arguments, messages
from gkm_ops.defocus.rendering import fill_gaps, render, sharpen_edges
from gkm_ops.srgb import to_linear, to_srgb

if TYPE_CHECKING:
    from gkm_ops.photos import Photo

_FRAMES, _FPS, _LONG_SIDE = 48, 24.0, 1920


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("photo", type=arguments.path, metavar="PHOTO", help="sharp from near to far, and opaque")
    parser.add_argument(
        "depth_map",
        type=arguments.path,
        metavar="DEPTH",
        help="a grey PNG or TIFF of 8 or 16 bits, a TIFF or PFM of floats, or a .npy; as large as the photo, or of its "
        "proportions in another size",
    )
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        type=arguments.path,
        metavar="OUT",
        help="a photo, or for --sweep a .gif or .mp4",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists; an input never is")
    parser.add_argument(
        "--depth",
        choices=("disparity", "distance"),
        default="disparity",
        help="what DEPTH holds: disparity or any inverse depth, in which bright is near, or the distance from the "
        "camera, in which bright is far; default: %(default)s",
    )
    parser.add_argument(
        "--focus",
        type=_focus,
        metavar="D",
        help="the disparity in focus, from 0, the farthest in DEPTH, to 1, the nearest; or X,Y, the pixel of PHOTO "
        "in focus, counted from 0,0 at the upper left",
    )
    parser.add_argument(
        "--aperture",
        required=True,
        type=arguments.positive,
        metavar="A",
        help="pixels across the disk that the farthest point turns into when the nearest is in focus; other disks "
        "are smaller in proportion to their disparity from the focus",
    )
    parser.add_argument(
        "--shape", choices=("disk", "gaussian"), default="disk", help="of a blurred point; default: %(default)s"
    )
    arguments.add_device(parser)
    arguments.add_max_megapixels(parser)
    sweep = parser.add_argument_group("focus pull")
    sweep.add_argument("--sweep", action="store_true", help="write a video of the focus from --focus to --focus-to")
    sweep.add_argument("--focus-to", type=_focus, metavar="D", help="as --focus; default: from 0 to 1")
    sweep.add_argument("--frames", type=_count, metavar="N", help=f"default: {_FRAMES}")
    sweep.add_argument("--fps", type=arguments.positive, metavar="N", help=f"frames per second; default: {_FPS:g}")
    sweep.add_argument(
        "--long-side",
        type=_count,
        metavar="N",
        help=f"scale a larger photo down to so many pixels, and the aperture with it; default: {_LONG_SIDE}",
    )


def run(options: argparse.Namespace) -> int:
    try:
        with torch.inference_mode():
            (_pull if options.sweep else _still)(options)
    except ImportError as error:
        return messages.lacking("render", error, "photos,video")
    except (OSError, ValueError, RuntimeError, MemoryError) as error:
        return messages.failed("render", error)
    return 0


def _still(options: argparse.Namespace) -> None:
    from gkm_ops import photos

    for name in ("focus_to", "frames", "fps", "long_side"):
        if getattr(options, name) is not None:
            raise ValueError(f"--{name.replace('_', '-')}: got it without --sweep, wanted both or neither")
    if options.focus is None:
        raise ValueError("--focus: got none, wanted a disparity from 0 to 1 or a pixel X,Y; only --sweep goes without")
    if options.output.suffix.lower() not in photos.FORMATS:
        raise ValueError(
            f"--output: got the suffix {options.output.suffix!r}, wanted one of {', '.join(photos.FORMATS)}, or "
            "--sweep for a video"
        )
    arguments.check_free(options.output, (options.photo, options.depth_map), options.overwrite)
    photo = photos.read(options.photo, max_megapixels=options.max_megapixels)
    photos.check(options.output, photo)
    _check_opaque(photo, options.photo)
    disparity = _disparity(options, *photo.pixels.shape[:2])
    focus = _disparity_at(options.focus, disparity, "--focus")
    image, disparity = _moved(options.device, photo.image, disparity)
    arguments.make_folder(options.output.parent)
    light = render(to_linear(image), disparity, focus=focus, aperture=options.aperture, shape=options.shape)
    photos.write(options.output, photo.with_image(to_srgb(light)), overwrite=options.overwrite)


def _pull(options: argparse.Namespace) -> None:
    from tqdm import tqdm

    from gkm_ops import photos, video

    fps = options.fps or _FPS
    video.check(options.output, fps)
    arguments.check_free(options.output, (options.photo, options.depth_map), options.overwrite)
    photo = photos.read(options.photo, max_megapixels=options.max_megapixels)
    _check_opaque(photo, options.photo)
    disparity = _disparity(options, *photo.pixels.shape[:2])
    start = _disparity_at(0.0 if options.focus is None else options.focus, disparity, "--focus")
    stop = _disparity_at(1.0 if options.focus_to is None else options.focus_to, disparity, "--focus-to")
    image, disparity = _moved(options.device, _in_srgb(photo, options.photo), disparity)
    light, scale = to_linear(image), min(1.0, (options.long_side or _LONG_SIDE) / max(disparity.shape))
    if scale < 1:
        size = [max(1, round(scale * side)) for side in disparity.shape]
        light = F.interpolate(light.unsqueeze(0), size, mode="bilinear", antialias=True)[0]
        disparity = F.interpolate(disparity[None, None], size, mode="nearest-exact")[0, 0]

    def frame(focus: float) -> NDArray[np.uint8]:
        pulled = render(light, disparity, focus=focus, aperture=scale * options.aperture, shape=options.shape)
        return (255 * to_srgb(pulled)).round().byte().permute(1, 2, 0).cpu().numpy()

    pull = torch.linspace(start, stop, options.frames or _FRAMES).tolist()
    arguments.make_folder(options.output.parent)
    frames = map(frame, tqdm(pull, unit="frame", leave=False, disable=None))
    video.write(options.output, frames, fps=fps, overwrite=options.overwrite)


def _check_opaque(photo: Photo, path: Path) -> None:
    """Blur would bring out what transparent pixels hide, and leave the outline sharp."""
    if photo.pixels.shape[2] in (2, 4) and (photo.pixels[..., -1] < np.iinfo(photo.pixels.dtype).max).any():
        raise ValueError(f"{path}: got transparent pixels, wanted an opaque photo; put it on a background first")


def _disparity(options: argparse.Namespace, H: int, W: int) -> Tensor:
    """The depth map as disparity from 0, its farthest, to 1, its nearest: ``[H, W]``, float32."""
    from gkm_ops import photos

    path = options.depth_map
    depth = _read_depth(path)
    photos.check_proportions(path, depth.shape, (H, W))
    wanted = "finite"
    if options.depth == "distance":
        wanted = "a number > 0"
        with np.errstate(all="ignore"):
            depth = np.where(depth > 0, 1 / depth, np.nan)
    disparity = torch.from_numpy(depth)
    known = disparity.isfinite()
    if not known.any():
        raise ValueError(f"{path}: got no {options.depth} that is {wanted}")
    least, most = disparity[known].aminmax()
    if least == most:
        raise ValueError(f"{path}: got one {options.depth} everywhere, wanted depths to tell apart")
    if not known.all():
        share = 1 - known.double().mean().item()
        messages.say(
            "render",
            f"warning: {path}: {share:.2%} of it is not {wanted}; filled with the farther neighbour in the row",
        )
    filled = ((fill_gaps(disparity) - least) / (most - least)).float()
    return sharpen_edges(F.interpolate(filled[None, None], (H, W), mode="bilinear", align_corners=False)[0, 0])


def _read_depth(path: Path) -> NDArray[np.float64]:
    """One number per pixel, from a .npy or, the right way up, from any picture of numbers that OpenCV reads."""
    import cv2

    content = path.read_bytes()
    try:
        if path.suffix.lower() == ".npy":
            depth = np.load(io.BytesIO(content), allow_pickle=False)
        else:
            as_it_is = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR  # but turned as EXIF says, unlike IMREAD_UNCHANGED
            depth = cv2.imdecode(np.frombuffer(content, np.uint8), as_it_is)
    except Exception:  # decoders raise all sorts of things when a file is damaged
        depth = None
    if depth is None:
        raise ValueError(f"{path}: cannot be read as depth, wanted an intact PNG, TIFF, PFM or .npy of numbers")
    if depth.ndim == 3 and depth.shape[2] in (3, 4) and (depth[..., :3] == depth[..., :1]).all():
        depth = depth[..., 0]  # grey, stored as colours
    if depth.ndim == 3 and 1 in (depth.shape[0], depth.shape[2]):
        depth = depth[0] if depth.shape[0] == 1 else depth[..., 0]
    if depth.ndim != 2 or depth.size == 0 or depth.dtype.kind not in "buif":
        got = f"shape {depth.shape} of {depth.dtype}"
        raise ValueError(f"{path}: got {got}, wanted one number per pixel: grey, not colours that stand for depth")
    return depth.astype(np.float64)


def _disparity_at(focus: float | tuple[int, int], disparity: Tensor, option: str) -> float:
    if isinstance(focus, float):
        return focus
    x, y = focus
    H, W = disparity.shape
    if x >= W or y >= H:
        raise ValueError(f"{option}: got the pixel {x},{y}, wanted one of the photo's {W} x {H}, counted from 0,0")
    return disparity[y, x].item()


def _in_srgb(photo: Photo, path: Path) -> Tensor:
    """The photo's colours without their profile, which videos have no place for."""
    from PIL import Image, ImageCms

    if photo.icc_profile is None or photo.pixels.shape[2] < 3:
        return photo.image
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(photo.icc_profile))
        pixels = (255 * photo.image).round().byte().permute(1, 2, 0).numpy()
        converted = ImageCms.profileToProfile(Image.fromarray(pixels), profile, ImageCms.createProfile("sRGB"))
    except (ImageCms.PyCMSError, OSError) as error:
        messages.say("render", f"warning: {path}: its colour profile cannot be used and is taken for sRGB: {error}")
        return photo.image
    return torch.from_numpy(np.asarray(converted) / np.float32(255)).permute(2, 0, 1)


def _moved(device: str, *tensors: Tensor) -> list[Tensor]:
    with arguments.device_named(device):
        return [tensor.to(device) for tensor in tensors]


def _focus(text: str) -> float | tuple[int, int]:
    x, comma, y = text.partition(",")
    if comma and x.isdecimal() and y.isdecimal():
        return int(x), int(y)
    try:
        disparity = float(text)
    except ValueError:
        disparity = math.nan
    if not 0 <= disparity <= 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, wanted a disparity from 0 to 1, or a pixel X,Y")
    return disparity


def _count(text: str) -> int:
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"got {text!r}, wanted an integer > 0")
    return int(text)
