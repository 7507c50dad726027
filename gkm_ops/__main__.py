"""Command line: ``python -m gkm_ops info`` tells what was built, what the processor has and what can serve."""

from __future__ import annotations

import argparse
import json
from typing import Any

import torch

from gkm_ops import __version__, build_info


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m gkm_ops", description="Fused Gaussian-mixture blurs for PyTorch.")
    parser.add_argument("--version", action="version", version=f"gkm_ops {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    info = commands.add_parser("info", help="what was built, what the processor has, which backends can serve")
    info.add_argument("--json", action="store_true", help="print the same as JSON")
    options = parser.parse_args(arguments)
    try:
        facts = {"gkm_ops": __version__, **build_info()}
    except RuntimeError as error:  # an environment variable that asks for what is not there
        raise SystemExit(f"python -m gkm_ops: error: {error}") from error
    print(json.dumps(facts, indent=2) if options.json else legible(facts))


def legible(facts: dict[str, Any]) -> str:
    """The facts of `build_info` as lines of a name and a value."""
    lines = [(name, str(facts[name])) for name in ("gkm_ops", "python", "torch", "threads", "compiler")]
    if "instruction_sets" in facts:
        features = facts["cpu_features"]
        lines += [
            ("compiled for", ", ".join(facts["instruction_sets"])),
            ("serving", facts["instruction_set"]),
            ("processor has", ", ".join(name for name, there in features.items() if there) or "nothing listed"),
            ("and lacks", ", ".join(name for name, there in features.items() if not there) or "nothing listed"),
        ]
    text = [f"{name:<15}{value}" for name, value in lines]
    for device, backends in facts["backends"].items():
        absent = device == "cuda" and not torch.cuda.is_available()
        text.append(f"\nbackends for {device} tensors" + (" (torch sees no such device)" if absent else ""))
        text += [f"  {name:<13}{verdict}" for name, verdict in backends.items()]
    return "\n".join(text)


if __name__ == "__main__":
    main()
