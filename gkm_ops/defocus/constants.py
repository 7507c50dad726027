"""Modules whose buffers are constants."""

from __future__ import annotations

from typing import Any

from torch import nn


class Constants(nn.Module):
    """Its own buffers follow to another device, and keep their type and digits where modules go to a narrower one."""

    def _apply(self, fn: Any, recurse: bool = True) -> Constants:
        exact = dict(self._buffers)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, before in exact.items():
            after = self._buffers[name]
            if before is not None and after is not None and after.dtype != before.dtype:
                self._buffers[name] = before.to(after.device)
        return self
