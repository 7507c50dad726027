"""The command line ``gkm``: every command is a module with ``add_arguments(parser)`` and ``run(options) -> int``."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from gkm_ops import __version__

# The modules' first lines are their help.
COMMANDS = (
    "deblur",
    "evaluate",
    "fit",
    "info",
    "render",
    "train",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: what follows ``gkm``; None: the process's own.

    Returns:
        The exit status: 0 where all went well.

    Raises:
        SystemExit: arguments that do not parse (status 2), or ``--help`` and ``--version``.

    Example:
        >>> main(["info"])  # doctest: +SKIP
    """
    try:
        status = _run(argv)
        if sys.stdout is not None:  # as it is where it was closed from the start
            sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # who read what is printed has gone, as `head` does; so would the interpreter's last flush
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        return 141
    return status


def _run(argv: Sequence[str] | None) -> int:
    description = "Defocus blur by mixtures of Gaussians: remove it from photos, render it, measure it."
    parser = argparse.ArgumentParser(prog="gkm", description=description)
    parser.add_argument("--version", action="version", version=f"gkm_ops {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    modules = {name: importlib.import_module(f"gkm_ops.cli.{name}") for name in COMMANDS}
    for name, module in modules.items():
        summary = (module.__doc__ or "").partition("\n")[0]
        module.add_arguments(commands.add_parser(name, help=summary, description=summary))
    options = parser.parse_args(argv)
    return modules[options.command].run(options)
