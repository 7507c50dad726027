"""Tell what was built, what the processor has, which backends can serve and why another cannot."""

from __future__ import annotations

import argparse
import json
from typing import Any

import torch

from gkm_ops import __version__, available_backends, backends, build_info
from gkm_ops.cli import messages


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the same as JSON")


def run(options: argparse.Namespace) -> int:
    try:
        facts = {"gkm_ops": __version__, "forced_backend": backends.forced(), **build_info()}
    except (RuntimeError, ValueError) as error:  # an environment variable that asks for what is not there
        return messages.failed("info", error)
    print(json.dumps(facts, indent=2) if options.json else legible(facts))
    return 0


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
    lines.append(("CUDA kernels", facts["cuda"]))
    if facts.get("forced_backend") is not None:
        lines.append(("forced backend", facts["forced_backend"]))
    text = [f"{name:<15}{value}" for name, value in lines]
    for device, verdicts in facts["backends"].items():
        absent = device == "cuda" and not torch.cuda.is_available()
        text.append(f"\nbackends for {device} tensors" + (" (torch sees no such device)" if absent else ""))
        in_double = available_backends(device, torch.float64)
        for name, verdict in verdicts.items():
            if verdict != in_double[name]:
                verdict += f"; float64 goes to the next one: {in_double[name]}"
            text.append(f"  {name:<13}{verdict}")
    return "\n".join(text)
