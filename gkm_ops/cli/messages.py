"""What commands say on stderr, behind their names, and the exit status that goes with it."""

from __future__ import annotations

import sys


def say(command: str, message: str) -> None:
    """One line, above a progress bar where there is one."""
    line = f"gkm {command}: {message}"
    try:
        from tqdm import tqdm
    except ImportError:
        print(line, file=sys.stderr)
    else:
        tqdm.write(line, file=sys.stderr)


def failed(command: str, error: Exception | str) -> int:
    """An error, by its kind where it has no words; that nobody reads any more is for the command line to see."""
    if isinstance(error, BrokenPipeError):
        raise error
    say(command, f"error: {str(error) or type(error).__name__}")
    return 1


def lacking(command: str, error: ImportError, extra: str) -> int:
    """A library that is not installed, and the extra that brings it."""
    return failed(command, f'{error}; pip install "gkm-ops[{extra}]" brings what this command wants')
