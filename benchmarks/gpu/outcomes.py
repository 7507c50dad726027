"""What a row of the record says in place of figures."""

from __future__ import annotations

import re

OUT_OF_TIME = "left out: there was no more time"
_WRONG = "wrong: differs"


def wrong(difference: float, from_what: str) -> str:
    """Of a result that is not right, and was not timed."""
    return f"{_WRONG} from {from_what} by {difference:.2e}"


def is_wrong(error: str | None) -> bool:
    return (error or "").startswith(_WRONG)


def first_line(error: BaseException) -> str:
    """Of what went wrong; its kind where it says nothing; the last one of Triton's, which says where, and then what."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1] if re.fullmatch(r"at \d+:\d+:", lines[0]) else lines[0]
