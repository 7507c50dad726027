"""Where a record goes: JSON, tables and a picture side by side, named by the machine."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write(
    record: dict[str, Any], machine: str, tables: str, folder: Path, picture: Callable[[Path], None] | None = None
) -> None:
    """Write all files of a record, or none of them.

    Args:
        record: what goes into the JSON.
        machine: what the files are named by, in words.
        tables: Markdown.
        folder: made where it is not there.
        picture: writes a PNG to a path.
    """
    name = re.sub(r"[^a-z0-9]+", "-", machine.lower()).strip("-")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as fresh:
        (Path(fresh) / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
        (Path(fresh) / f"{name}.md").write_text(tables)
        if picture is not None:
            picture(Path(fresh) / f"{name}.png")
        for path in sorted(Path(fresh).iterdir()):
            path.replace(folder / path.name)
            print(f"written: {folder / path.name}")
