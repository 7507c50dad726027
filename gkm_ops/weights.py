"""GKMNet's weights in files: safetensors of ours, checkpoints of torch's, and those that come with the package."""

from __future__ import annotations

import importlib.resources
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from gkm_ops.files import replacing
from gkm_ops.nn.gkmnet import GKMNet, unwrapped

_PACKAGED = "gkmnet.safetensors"
_DAMAGED = "got a file that is damaged or holds more than tensors, which is never run"
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def pretrained() -> GKMNet:
    """The network with the weights that come with the package, in evaluation mode on the CPU.

    Raises:
        FileNotFoundError: the package was installed without them.

    Example:
        >>> pretrained().deblur(torch.rand(3, 70, 90)).shape  # doctest: +SKIP
        torch.Size([3, 70, 90])
    """
    resource = importlib.resources.files("gkm_ops.data").joinpath(_PACKAGED)
    if not resource.is_file():
        raise FileNotFoundError(f"gkm_ops/data/{_PACKAGED}: this package has come without weights; name a file of some")
    with importlib.resources.as_file(resource) as path:
        return load_net(path)


def load_net(path: str | os.PathLike[str], release: str | None = None) -> GKMNet:
    """A network made for the weights in a file, with them, in evaluation mode on the CPU.

    Args:
        path: as for `load_weights`.
        release: ``"v1"`` or ``"v2"``, for weights that do not say theirs, as the authors' do not.

    Raises:
        OSError: the file cannot be read.
        ValueError: not weights of a GKMNet, or ``release`` is missing, or contradicts the file.

    Example:
        >>> save_weights(GKMNet(release="v1"), "weights.safetensors")
        >>> load_net("weights.safetensors").gcm.release
        'v1'
    """
    state, said = _read(Path(path))
    release = release or said
    if release is None:
        raise ValueError(f'{path}: got weights that do not say their release; set release to "v1" or "v2" (--release)')
    # Only a trainable bank is in the state, and how it started makes no difference.
    net = GKMNet(release, "TG" if any(str(name).startswith("gcm.") for name in state) else "FG")
    _load(net, path, state, said)
    return net.eval()


def load_weights(net: GKMNet, path: str | os.PathLike[str]) -> None:
    """Load a file's weights into a network. Code in the file is never run.

    Args:
        net: changed only if everything fits.
        path: ``.safetensors``, or else a checkpoint saved by torch, wrapped or not (`GKMNet.load_state_dict`).

    Raises:
        OSError: the file cannot be read.
        ValueError: a damaged file, one with code in it, other names or shapes than the network's, tensors that are not
            dense ones of float16 to float64, numbers that are infinite or NaN, or weights that say they are of the
            other release.

    Example:
        >>> save_weights(GKMNet(), "weights.safetensors")
        >>> load_weights(GKMNet(), "weights.safetensors")
    """
    _load(net, path, *_read(Path(path)))


def save_weights(net: GKMNet, path: str | os.PathLike[str]) -> None:
    """Write a network's weights and its release as safetensors, whole or not at all, in the place of any older file.

    Raises:
        OSError: the file cannot be written; what was there is as it was.
        ValueError: ``path`` ends in something else than .safetensors.

    Example:
        >>> save_weights(GKMNet(), "weights.safetensors")
    """
    if Path(path).suffix != ".safetensors":
        raise ValueError(f"path: got {str(path)!r}, wanted a name that ends in .safetensors")
    state = {name: value.detach().cpu().contiguous() for name, value in net.state_dict().items()}
    with replacing(path) as file:
        file.write(safetensors.torch.save(state, {"release": net.gcm.release}))


def unpickled(content: bytes, path: Path) -> Any:
    """What torch.save wrote, on the CPU. Code in it is never run.

    Args:
        content: all of the file.
        path: what to call it in an error.

    Raises:
        ValueError: a damaged file, or one with code in it.

    Example:
        >>> torch.save({"a": 1}, "a.pt")
        >>> unpickled(Path("a.pt").read_bytes(), Path("a.pt"))
        {'a': 1}
    """
    try:
        return torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    except Exception as error:  # each layer of the format has errors of its own
        raise ValueError(f"{path}: {_DAMAGED}; wanted tensors that torch.save wrote") from error


def _read(path: Path) -> tuple[Mapping[str, Any], str | None]:
    """The state dict in a file, and the release it says it is of."""
    release = None
    if path.suffix == ".safetensors":
        try:
            with safetensors.safe_open(path, "pt") as file:
                release = (file.metadata() or {}).get("release")
                content: Any = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict
        except OSError as error:
            if str(path) in str(error):
                raise
            raise OSError(f"{path}: {error}") from error
        except Exception as error:  # each layer of the format has errors of its own
            raise ValueError(f"{path}: {_DAMAGED}; wanted an intact safetensors file") from error
    else:
        content = unpickled(path.read_bytes(), path)
    if not isinstance(content, Mapping):
        raise ValueError(f"{path}: got a {type(content).__name__}, wanted the state dict of a GKMNet")
    return unwrapped(content), release


def _load(net: GKMNet, path: str | os.PathLike[str], state: Mapping[str, Any], said: str | None) -> None:
    if said not in (None, net.gcm.release):
        raise ValueError(f"{path}: got weights of release {said!r}, wanted {net.gcm.release!r}, that of the network")
    wanted = net.state_dict()
    misfits = [
        *(f"no {name}" for name in wanted if name not in state),
        *(f"{name}, unknown" for name in state if name not in wanted),
        *(f"{name} {told}" for name in wanted if name in state and (told := _misfit(state[name], wanted[name]))),
    ]
    if misfits:
        shown = "; ".join(misfits[:3]) + (f"; and {len(misfits) - 3} more" if len(misfits) > 3 else "")
        raise ValueError(f"{path}: got other weights than a GKMNet's {len(wanted)} entries: {shown}")
    net.load_state_dict({name: state[name] for name in wanted})


def _misfit(value: Any, wanted: torch.Tensor) -> str | None:
    """What keeps a value from an entry's place. Numbers come last: a small file can claim any number of them."""
    if not isinstance(value, torch.Tensor):
        return f"as a {type(value).__name__}"
    if value.is_nested or value.layout != torch.strided or value.device.type != "cpu":
        return "not as a dense tensor with values"
    if value.shape != wanted.shape:
        return f"of shape {tuple(value.shape)}, not {tuple(wanted.shape)}"
    if value.dtype not in (*_DTYPES, wanted.dtype):
        return f"of {value.dtype}"
    return None if value.isfinite().all() else "with NaN or infinity"
