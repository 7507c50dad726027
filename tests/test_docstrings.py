"""The examples in docstrings run, and give what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest
import torch

import benchmarks
import gkm_ops

# Kernels of Triton are imported where it is; the modules of command lines run on import.
_LEFT_OUT = ("gkm_ops.kernels", "gkm_ops._")
_MODULES = sorted(
    module.name
    for package in (gkm_ops, benchmarks)
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if not module.name.startswith(_LEFT_OUT) and not module.name.endswith("__main__")
)


@pytest.mark.parametrize("name", ["gkm_ops", *_MODULES])
def test_examples_give_what_they_say(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    assert doctest.testmod(importlib.import_module(name)).failed == 0
