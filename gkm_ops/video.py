"""Moving pictures to files: GIF by Pillow, MP4 by PyAV.

OpenCV's wheels have no encoder of H.264, the one kind of video that browsers, phones and players all show; PyAV's
wheels bring FFmpeg with x264: ``pip install "gkm-ops[video]"`` installs them.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from gkm_ops.files import replacing

try:
    from PIL import Image
except ImportError as error:
    raise ImportError('GIFs are written with Pillow: pip install "gkm-ops[photos]"') from error

FORMATS = (".gif", ".mp4")

# Frames per second. What a GIF shows for less than 0.02 s, browsers show for 0.1 s.
_SLOWEST = 0.01
_FASTEST = {".gif": 50.0, ".mp4": 240.0}

_CRF = "18"  # x264's constant quality; at 18 few see a difference
_BT709 = 1  # the number of its primaries, transfer and matrix in ITU-T H.273


def write(
    path: str | os.PathLike[str], frames: Iterable[NDArray[np.uint8]], *, fps: float, overwrite: bool = False
) -> None:
    """Write a video, whole or not at all, in the format of the file's suffix.

    A GIF gets 256 colours of its own for every frame, dithered, and repeats for ever; its frames last whole
    hundredths of a second. An MP4 is H.264 in 4:2:0 and BT.709, with its index in front; a last odd row or column
    is doubled, since it has to have even sides.

    Args:
        path: ends in .gif or .mp4.
        frames: at least one, of equal size: ``[H, W, 3]``, uint8, sRGB. They are taken one by one.
        fps: frames per second, at least 0.01 and at most 50 in a GIF, 240 in an MP4.
        overwrite: whether to replace a file that exists.

    Raises:
        FileExistsError: the file exists and ``overwrite`` is not set.
        ImportError: PyAV is not installed, which an MP4 wants.
        OSError: it cannot be written; what was at ``path`` is as it was.
        ValueError: another suffix, a rate outside that range, or frames that do not fit.

    Example:
        >>> write("grey.gif", (np.full((20, 30, 3), value, np.uint8) for value in range(0, 250, 10)), fps=20)
    """
    path = Path(path)
    check(path, fps)
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path}: exists already")
    encode = _write_gif if path.suffix.lower() == ".gif" else _write_mp4
    with replacing(path) as file:
        encode(file, _checked(frames), fps)


def check(path: Path, fps: float) -> None:
    """What `write` says of a name and a rate, without writing.

    Raises:
        ValueError: another suffix, or a rate outside the format's range.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise ValueError(f"{path}: got the suffix {path.suffix!r}, wanted one of {', '.join(FORMATS)}")
    if not _SLOWEST <= fps <= _FASTEST[suffix]:
        raise ValueError(f"fps: got {fps:g}, wanted a number from {_SLOWEST:g} to {_FASTEST[suffix]:g} for a {suffix}")


def _checked(frames: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
    shape = None
    for frame in frames:
        shape = frame.shape if shape is None else shape
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.shape != shape:
            raise ValueError(
                f"frames: got shape {frame.shape} of {frame.dtype}, wanted [H, W, 3] of uint8, as large as the first"
            )
        yield frame
    if shape is None:
        raise ValueError("frames: got none, wanted at least one")


def _write_gif(file: BinaryIO, frames: Iterator[NDArray[np.uint8]], fps: float) -> None:
    pictures = map(_in_256_colours, frames)
    first = next(pictures)
    milliseconds = 10 * round(100 / fps)
    first.save(file, "GIF", save_all=True, append_images=pictures, duration=milliseconds, loop=0)


def _in_256_colours(frame: NDArray[np.uint8]) -> Image.Image:
    picture = Image.fromarray(frame)
    palette = picture.quantize(256, Image.Quantize.FASTOCTREE)
    return picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)


def _write_mp4(file: BinaryIO, frames: Iterator[NDArray[np.uint8]], fps: float) -> None:
    try:
        import av
    except ImportError as error:
        raise ImportError('MP4s are written with PyAV: pip install "gkm-ops[video]"; or name a .gif') from error
    first = next(frames)
    height, width = (n + n % 2 for n in first.shape[:2])
    try:
        # By name: to put the index in front, the file is read again once it is complete.
        with av.open(file.name, "w", format="mp4", options={"movflags": "+faststart"}) as container:
            stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.options = {"crf": _CRF}
            context: Any = stream.codec_context
            context.color_primaries = context.color_trc = context.colorspace = _BT709
            for frame in chain([first], frames):
                even = np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), mode="edge")
                picture = av.VideoFrame.from_ndarray(even, format="rgb24")
                container.mux(stream.encode(picture.reformat(format="yuv420p", dst_colorspace=_BT709)))
            container.mux(stream.encode(None))
    except av.FFmpegError as error:
        told = f"FFmpeg cannot write the video: {error.strerror}"
        # FFmpeg has errors of its own beside the system's, whose numbers mean nothing elsewhere.
        raise (OSError(error.errno, told) if error.errno in errno.errorcode else OSError(told)) from error
