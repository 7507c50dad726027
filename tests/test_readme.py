"""What the README shows runs: its Python as it stands, its command lines as far as their arguments."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

from gkm_ops import cli, photos

README = (Path(__file__).resolve().parent.parent / "README.md").read_text()
PYTHON = "\n".join(re.findall(r"```python\n(.*?)```", README, re.DOTALL))
SHELL = "\n".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL)).replace("\\\n", " ")
COMMANDS = re.findall(r"^(?:gkm|.* -m gkm_ops) .*$", SHELL, re.MULTILINE)


def test_the_python_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sharp, defocused = torch.rand(2, 3, 64, 64)
    photos.write("photo.jpg", photos.Photo(np.full((64, 64, 3), 128, np.uint8)))
    exec(compile(PYTHON, "README.md", "exec"), {"sharp": sharp, "defocused": defocused})
    assert photos.read("sharper.jpg").image.shape == sharp.shape


def test_all_commands_are_shown():
    assert {words[0] for words in map(_arguments, COMMANDS)} == set(cli.COMMANDS)


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_line_is_understood(line, monkeypatch):
    for name in cli.COMMANDS:
        monkeypatch.setattr(importlib.import_module(f"gkm_ops.cli.{name}"), "run", lambda options: 0)
    assert cli.main(_arguments(line)) == 0


def _arguments(line: str) -> list[str]:
    words = shlex.split(line, comments=True)
    return words[words.index("gkm_ops" if "gkm_ops" in words else "gkm") + 1 :]
