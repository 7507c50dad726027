"""Compiling C++ for tests that run it on its own."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover"]

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")


def run(*command: str | Path, **options) -> subprocess.CompletedProcess[str]:
    """The command done, in silence and to its end."""
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, **options)


def compile_with(*arguments: str | Path) -> str:
    """What the compiler says to a command that has to succeed."""
    done = run(*arguments)
    assert done.returncode == 0, f"{' '.join(map(str, arguments))}\n{done.stderr}"
    return done.stdout + done.stderr


def replace_once(path: Path, text: str, replacement: str) -> None:
    """Puts a fault into a file."""
    source = path.read_text()
    assert source.count(text) == 1, f"{path.name} no longer has {text!r} once: choose another place for this fault"
    path.write_text(source.replace(text, replacement))


def add_fault(path: Path, around: str, text: str, instead: str, chosen: str) -> None:
    """Puts a fault in the place of a statement or expression where, as the program runs, the expression `chosen` holds.

    So one program has many faults to choose from: it takes longer to compile than to run.
    """
    if text.endswith(";"):
        either = f"if ({chosen}) {{ {instead} }} else {{ {text} }}"
    else:
        either = f"({chosen} ? {instead} : {text})"
    replace_once(path, around, around.replace(text, either, 1))


@pytest.fixture
def sanitizers(tmp_path: Path) -> None:
    """Skips where g++ cannot link its sanitizers."""
    source = tmp_path / "empty.cpp"
    source.write_text("int main() {}\n")
    done = run("g++", *SANITIZERS, source, "-o", tmp_path / "empty")
    if done.returncode != 0:
        pytest.skip(f"g++ cannot link its sanitizers: {done.stderr.strip().splitlines()[-1]}")
