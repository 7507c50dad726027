"""Files that are written whole or not at all, errors that name them, and whether two names are one file's."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

# Of the names that files have until they are complete.
_DIGITS, _PART = 16, ".part"


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write to that takes the place of ``path`` once everything is on the disk.

    Until then it has another name in the same folder. After an error (a full disk, an interruption) it is
    removed, and what was at ``path`` is as it was. It has the mode of the file that it replaces, and where that is
    by a link, the link stays.

    Args:
        path: where the file shall be; its folder exists.

    Raises:
        OSError: the file cannot be written or put in its place; it names ``path``, unless it names another file.

    Example:
        >>> with replacing("notes.bin") as file:
        ...     _ = file.write(b"all of it")
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{secrets.token_hex(_DIGITS // 2)}{_PART}")
    with naming(path, temporary):
        try:
            with temporary.open("xb") as file:
                with suppress(FileNotFoundError):
                    shutil.copymode(target, temporary)
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def remove_leftovers(folder: Path) -> None:
    """Remove what `replacing` has left in a folder where its process was killed, and nobody has written to for an hour.

    Example:
        >>> Path(".0123456789abcdef.part").touch()
        >>> os.utime(".0123456789abcdef.part", (0, 0))
        >>> remove_leftovers(Path())
        >>> Path(".0123456789abcdef.part").exists()
        False
    """
    for path in folder.glob(f".{'[0-9a-f]' * _DIGITS}{_PART}"):
        if path.stat().st_mtime < time.time() - 3600:
            path.unlink(missing_ok=True)


@contextmanager
def naming(path: str | os.PathLike[str], meanwhile: str | os.PathLike[str] | None = None) -> Iterator[None]:
    """An error of the system within it that names no file, as those of writing do not, names this one.

    Args:
        path: the file.
        meanwhile: another name that the file has within; an error that names that names ``path``, too.

    Example:
        >>> with naming("notes.txt"):
        ...     raise OSError(28, "No space left on device")
        Traceback (most recent call last):
        OSError: [Errno 28] No space left on device: 'notes.txt'
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename not in (None, meanwhile and os.fspath(meanwhile)):
            raise
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def is_among(path: Path, others: Iterable[Path]) -> bool:
    """Whether a file is one of the others, by whatever name; what is not there is none.

    Example:
        >>> is_among(Path("absent.txt"), [Path("absent.txt")])
        False
    """
    return path.exists() and any(other.exists() and path.samefile(other) for other in others)
