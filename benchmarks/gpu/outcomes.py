"""What a row of the record says in place of figures."""

from __future__ import annotations

OUT_OF_TIME = "left out: there was no more time"
_WRONG = "wrong: differs"


def wrong(difference: float, from_what: str) -> str:
    """Of a result that is not right, and was not timed."""
    return f"{_WRONG} from {from_what} by {difference:.2e}"


def is_wrong(error: str | None) -> bool:
    return (error or "").startswith(_WRONG)


def first_line(error: BaseException) -> str:
    """Of what went wrong; its kind where it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)
