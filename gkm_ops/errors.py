"""Words that the errors of all modules share."""

from __future__ import annotations

from torch import Tensor


def described(value: object) -> str:
    """What kind of thing came in where another was wanted.

    Example:
        >>> described([1.0])
        'a list'
    """
    return f"a {value.dtype} tensor" if isinstance(value, Tensor) else f"a {type(value).__name__}"
