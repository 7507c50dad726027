"""Pulls the focus through the Middlebury motorcycle, from the wall behind it to its nearest point: the README's GIF.

``python -m examples.pull_motorcycle -o pull.gif``, or an .mp4; what it calls is ``gkm render --sweep``.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import skimage.data

from gkm_ops import photos
from gkm_ops.cli import main as gkm
from gkm_ops.photos import Photo


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.pull_motorcycle", description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="ends in .gif or .mp4")
    options = parser.parse_args()
    pixels, _, disparity = skimage.data.stereo_motorcycle()
    with tempfile.TemporaryDirectory() as folder:
        photo, depth = Path(folder) / "motorcycle.png", Path(folder) / "motorcycle.npy"
        photos.write(photo, Photo(pixels))
        np.save(depth, disparity)
        lens = ["--sweep", "--aperture", "30", "--frames", "16", "--fps", "8", "--long-side", "400"]
        return gkm(["render", str(photo), str(depth), *lens, "-o", options.output, "--overwrite"])


if __name__ == "__main__":
    raise SystemExit(main())
