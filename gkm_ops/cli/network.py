"""The options that choose a network, the device and type it computes in, and how large a photo may be."""

from __future__ import annotations

import argparse
import math
import re
from pathlib import Path

import torch

from gkm_ops import backends
from gkm_ops.cli import arguments
from gkm_ops.nn.gkmnet import GKMNet
from gkm_ops.weights import load_net, pretrained

# What deblurring takes of a processor's memory beside the photo, as `make bench-network` measures it in float32.
_BYTES_PER_MEGAPIXEL = 520e6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--weights", type=arguments.path, metavar="FILE", help="instead of those that come with the package"
    )
    parser.add_argument("--release", choices=("v1", "v2"), help="of weights that do not say it")
    arguments.add_device(parser)
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        help="default: %(default)s; bfloat16 changes results by about 0.005 of their norm, float16 by 0.0007",
    )
    arguments.add_max_megapixels(parser, None, "100, on the CPU fewer where less memory than those take is free")


def chosen(options: argparse.Namespace) -> GKMNet:
    """The network that the options name, on its device and in its type, in evaluation mode.

    Raises:
        FileNotFoundError: the package was installed without weights.
        RuntimeError: a backend was asked for that cannot serve there.
        ValueError: ``--weights``, ``--release`` or ``--device`` does not serve, or there is no such backend.
    """
    if options.weights is not None:
        with arguments.naming("--weights"):
            net = load_net(options.weights, options.release)
    elif options.release is not None:
        raise ValueError(f"--release: got {options.release!r} without --weights, wanted both or neither")
    else:
        net = pretrained()
    dtype = getattr(torch, options.dtype)
    with arguments.device_named(options.device):
        net.to(options.device, dtype)
    backends.choose(torch.device(options.device), dtype)  # that it cannot serve is told once, not for each photo
    return net


def most_megapixels(options: argparse.Namespace) -> float:
    """How large a photo may be: too little memory would end the process, not the call, on a CPU."""
    from gkm_ops.photos import MAX_MEGAPIXELS

    if options.max_megapixels is not None:
        return options.max_megapixels
    on_cpu = torch.device(options.device).type == "cpu"
    return min(MAX_MEGAPIXELS, _free_memory() / _BYTES_PER_MEGAPIXEL) if on_cpu else MAX_MEGAPIXELS


def _free_memory() -> float:
    """Bytes to be had without swapping, as Linux tells; elsewhere infinity."""
    try:
        told = Path("/proc/meminfo").read_text()
    except OSError:
        return math.inf
    found = re.search(r"^MemAvailable:\s+(\d+) kB", told, re.MULTILINE)
    return math.inf if found is None else 1024.0 * int(found[1])
