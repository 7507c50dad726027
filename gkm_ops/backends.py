"""Which implementation serves a call: the best that can, or the one that was asked for.

A backend is a set of functions with the names and arguments of the registered ops (`gkm_ops.ops`), plus
a rule that says which device and dtype it refuses and why.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import ModuleType, TracebackType

import torch
from torch import Tensor

_ENVIRONMENT_VARIABLE = "GKM_OPS_BACKEND"


@dataclass(frozen=True)
class Backend:
    """One implementation of the op family.

    Attributes:
        name: what `use_backend` takes.
        module: a module with a function for each op and `refusal(device, dtype)`, which returns
            None where it can serve and otherwise a sentence that says why not; ValueError where the environment
            asks it for something that is not there.
    """

    name: str
    module: ModuleType

    def refusal(self, device: torch.device, dtype: torch.dtype) -> str | None:
        return self.module.refusal(device, dtype)

    def implementation(self, op: str) -> Callable[..., Tensor]:
        return getattr(self.module, op)


# Best first.
_MODULES = {
    "cpu": "gkm_ops.cpu",
    "cuda": "gkm_ops.cuda",
    "triton": "gkm_ops.kernels.backend",
    "eager": "gkm_ops.reference",
}
_backends: dict[str, Backend] = {}


@dataclass(frozen=True, eq=False)
class _Setting:
    """A backend that is to serve, or None for the best, by a plain call of `use_backend` or by a block."""

    name: str | None
    of_block: bool


# The last one counts. Threads change it without a lock, by single operations.
_settings: list[_Setting] = []


def available_backends(device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> dict[str, str]:
    """What each backend says to serving a device and dtype.

    Args:
        device: as torch names it.
        dtype: of images.

    Returns:
        A dict of every backend's name, best first, to ``"available"`` or the reason why it cannot serve.

    Raises:
        TypeError: a dtype that is none.
        RuntimeError: a device that torch does not know.

    Example:
        >>> available_backends()["eager"]
        'available'
    """
    device = torch.device(device)
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"dtype: got {dtype!r}, wanted a torch.dtype such as torch.float32")

    def answer(name: str) -> str:
        try:
            return _load(name).refusal(device, dtype) or "available"
        except ValueError as error:  # the environment asks for what is not there
            return str(error)

    return {name: answer(name) for name in _MODULES}


class use_backend:  # noqa: N801
    """Force one backend for all calls, from now on or for a ``with`` block.

    The setting is the process's, so that backward passes on other threads follow it; where blocks overlap, the
    one entered last counts. It outranks the environment variable ``GKM_OPS_BACKEND``, which forces a backend from
    the start.

    Args:
        name: a name from `available_backends`, or None for the best that can serve each call.

    Raises:
        ValueError: an unknown name. A forced backend that cannot serve a call makes that call raise a
            RuntimeError with the reason.

    Example:
        >>> import torch
        >>> from gkm_ops import GaussianBank, gkm_blur
        >>> with use_backend("eager"):
        ...     y = gkm_blur(torch.rand(1, 3, 32, 32), torch.rand(1, 22, 32, 32), GaussianBank.gkmnet())
    """

    def __init__(self, name: str | None) -> None:
        self.name = None if name is None else _known(name, "use_backend")
        # Of plain calls the last one stays, for this may be a block.
        for replaced in [setting for setting in _settings if not setting.of_block][:-1]:
            _discard(replaced)
        self._own = [_Setting(self.name, of_block=False)]
        _settings.append(self._own[0])

    def __enter__(self) -> use_backend:
        if self._own and not self._own[0].of_block:
            _discard(self._own.pop())
        self._own.append(_Setting(self.name, of_block=True))
        _settings.append(self._own[-1])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._own:
            _discard(self._own.pop())


def _discard(setting: _Setting) -> None:
    with suppress(ValueError):  # another call has replaced it
        _settings.remove(setting)


def forced() -> str | None:
    """The backend that is to serve all calls, or None.

    Raises:
        ValueError: the environment variable names none that there is.
    """
    last = _settings[-1:]
    name = last[0].name if last else os.environ.get(_ENVIRONMENT_VARIABLE)
    return _known(name, _ENVIRONMENT_VARIABLE) if name else None


def choose(device: torch.device, dtype: torch.dtype) -> Backend:
    """The backend that serves a call on this device and dtype."""
    name = forced()
    if name is not None:
        backend = _load(name)
        reason = backend.refusal(device, dtype)
        if reason is not None:
            raise RuntimeError(f"backend {name!r} was asked for and cannot serve {dtype} on {device}: {reason}")
        return backend
    for candidate in _MODULES:
        backend = _load(candidate)
        if backend.refusal(device, dtype) is None:
            return backend
    raise AssertionError("the eager backend serves every call")


def _known(name: str, source: str) -> str:
    if name not in tuple(_MODULES):
        raise ValueError(f"{source}: got {name!r}, wanted one of {sorted(_MODULES)}")
    return name


def _load(name: str) -> Backend:
    if name not in _backends:
        _backends[name] = Backend(name, importlib.import_module(_MODULES[name]))
    return _backends[name]
