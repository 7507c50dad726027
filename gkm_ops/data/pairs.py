"""Which photo is the sharp one of which blurred one: pairs found by their folders or their names."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from gkm_ops.photos import FORMATS

SPLITS = ("train", "val", "test")


class Pair(NamedTuple):
    """A blurred photo and the sharp one of the same scene, and a name to report them by."""

    name: str
    blurred: Path
    sharp: Path


def find_pairs(
    paths: Iterable[str | os.PathLike[str]],
    *,
    blur_suffix: str = "_blur",
    sharp_suffix: str = "_sharp",
    split: str = "test",
) -> list[Pair]:
    """The pairs in folders and among files; nothing is opened.

    A folder may be laid out in one of three ways, tried in this order:

    - as the DPDD dataset: ``train_c``, ``val_c`` and ``test_c``, of which ``split`` chooses one, each with the
      blurred photos in ``source`` and the sharp ones in ``target``;
    - ``source`` and ``target`` themselves;
    - pairs by suffix, at any depth: ``X_blur.png`` beside ``X_sharp.png``. Files with neither suffix are passed
      over. Files given one by one are paired in this way too.

    Photos of ``source`` and ``target`` belong together that have equal names, or names that end in the same
    number (``blurred_012.png``, ``sharp_012.png``), or that follow each other in a camera's numbering, as those of
    DPDD do (``1P0A0917.png``, ``1P0A0916.png``): then they are paired in sorted order, if no pair overlaps another.

    Args:
        paths: folders and files.
        blur_suffix: what the names of blurred photos end in, before the extension.
        sharp_suffix: the same of the sharp ones; one of the two may be empty.
        split: ``"train"``, ``"val"`` or ``"test"``, for the DPDD layout only.

    Returns:
        The pairs in the order of the folders, and of their names within each, then those of single files; none
        twice. A pair's name is the blurred photo's path from the folder that holds them all, without suffix and
        extension.

    Raises:
        FileNotFoundError: a path that is not there.
        ValueError: a photo without its other half, two that could be it, no pair at all, or suffixes or a split
            that cannot serve.

    Example:
        >>> find_pairs(["photos"])  # doctest: +SKIP
        [Pair(name='bench', blurred=PosixPath('photos/bench_blur.png'), sharp=PosixPath('photos/bench_sharp.png'))]
    """
    if split not in SPLITS:
        raise ValueError(f"split: got {split!r}, wanted one of {', '.join(SPLITS)}")
    if blur_suffix == sharp_suffix:
        raise ValueError(f"blur_suffix, sharp_suffix: got {blur_suffix!r} for both, wanted two that differ")
    found: list[tuple[Path, Path]] = []
    files: list[Path] = []
    for path in map(Path, paths):
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file or folder")
        folder = _folder_of_sides(path, split)
        if folder is not None:
            found += _by_folder(folder / "source", folder / "target")
        elif path.is_dir():
            found += _by_suffix(_photos(path, "**/*"), blur_suffix, sharp_suffix)
        else:
            files.append(path)
    found += _by_suffix(files, blur_suffix, sharp_suffix)
    if not found:
        alone = "; sharp photos alone are trained on as such (--sharp)" if split == "train" else ""
        raise ValueError(
            f"no pairs found; wanted {split}_c/source and {split}_c/target (the DPDD layout), source and target, or "
            f"photos named X{blur_suffix}.png and X{sharp_suffix}.png{alone}"
        )
    return named(list(dict.fromkeys(found)), blur_suffix)


def _folder_of_sides(path: Path, split: str) -> Path | None:
    """The folder that holds ``source`` and ``target``, if this is one, or one of the DPDD layout."""
    if any((path / f"{other}_c").is_dir() for other in SPLITS):
        folder = path / f"{split}_c"
        for side in (folder / "source", folder / "target"):
            if not side.is_dir():
                raise ValueError(
                    f"{path}: laid out as DPDD, but without {side.relative_to(path)}; choose another split"
                )
        return folder
    return path if (path / "source").is_dir() and (path / "target").is_dir() else None


def _photos(folder: Path, pattern: str) -> list[Path]:
    """The files that look like photos, in order; hidden ones, and those in hidden folders, are a file manager's own."""

    def is_hidden(path: Path) -> bool:
        return any(part.startswith(".") for part in path.relative_to(folder).parts)

    return sorted(
        path
        for path in folder.glob(pattern)
        if path.suffix.lower() in FORMATS and not is_hidden(path) and path.is_file()
    )


def _by_folder(source: Path, target: Path) -> list[tuple[Path, Path]]:
    blurred, sharp = _photos(source, "*"), _photos(target, "*")
    for key in (lambda path: path.stem, _number):
        pairs = _by_key(blurred, sharp, key)
        if pairs is not None:
            return pairs
    if _follow_each_other(blurred, sharp):
        return list(zip(blurred, sharp, strict=True))
    alone, side = next(
        (path, side)
        for paths, others, side in ((blurred, sharp, target), (sharp, blurred, source))
        for path in paths
        if [other.stem for other in others].count(path.stem) != 1
    )
    raise ValueError(
        f"{alone}: not one photo of its name in {side}; name the two of a pair alike, or end both names in the "
        "number of the scene"
    )


def _number(path: Path) -> int | None:
    match = re.search(r"\d+$", path.stem)
    return int(match[0]) if match else None


def _by_key(
    blurred: list[Path], sharp: list[Path], key: Callable[[Path], str | int | None]
) -> list[tuple[Path, Path]] | None:
    """Those of equal key together; None unless that pairs every one of them with one other."""
    of_blurred, of_sharp = ({key(path): path for path in side} for side in (blurred, sharp))
    repeated = len(of_blurred) < len(blurred) or len(of_sharp) < len(sharp)
    if repeated or None in of_blurred or of_blurred.keys() != of_sharp.keys():
        return None
    return [(path, of_sharp[key(path)]) for path in blurred]


def _follow_each_other(blurred: list[Path], sharp: list[Path]) -> bool:
    """Whether each blurred photo and its sharp one were numbered by a camera with none of the others between.

    Sorted order alone would also pair photos of different scenes where each side lacks one.
    """
    stems = [path.stem for path in blurred + sharp]
    if len(blurred) != len(sharp) or len(set(stems)) < len(stems):
        return False
    pairs = [sorted((a.stem, b.stem)) for a, b in zip(blurred, sharp, strict=True)]
    numbered = all(re.sub(r"\d+$", "", a) == re.sub(r"\d+$", "", b) for a, b in pairs)
    return numbered and all(earlier[1] < later[0] for earlier, later in pairwise(pairs))


def _by_suffix(files: list[Path], blur_suffix: str, sharp_suffix: str) -> list[tuple[Path, Path]]:
    sides: dict[str, dict[Path, Path]] = {blur_suffix: {}, sharp_suffix: {}}
    # The longer one first: one may be empty, or end the other.
    suffixes = sorted(sides, key=len, reverse=True)
    for path in files:
        suffix = next((suffix for suffix in suffixes if path.stem.endswith(suffix)), None)
        if suffix is None:
            continue
        scene = path.parent / path.stem.removesuffix(suffix)
        if scene in sides[suffix]:
            raise ValueError(f"{path}: one of two of its name, beside {sides[suffix][scene].name}; rename or move one")
        sides[suffix][scene] = path
    blurred, sharp = sides[blur_suffix], sides[sharp_suffix]
    for side, other, wanted in ((blurred, sharp, sharp_suffix), (sharp, blurred, blur_suffix)):
        for scene, path in side.items():
            if scene not in other:
                raise ValueError(f"{path}: without its other half; wanted {scene.name}{wanted}{path.suffix} beside it")
    return [(path, sharp[scene]) for scene, path in blurred.items()]


def named(found: list[tuple[Path, Path]], blur_suffix: str = "") -> list[Pair]:
    """Each with the blurred photo's path from the folder that holds all of them, without suffix and extension.

    Example:
        >>> [pair.name for pair in named([(Path(p), Path(p)) for p in ("sea/a.png", "land/a.png")])]
        ['sea/a', 'land/a']
    """
    common = os.path.commonpath([blurred.absolute().parent for blurred, _ in found])
    pairs = []
    for blurred, sharp in found:
        name = blurred.absolute().relative_to(common).with_name(blurred.stem.removesuffix(blur_suffix) or blurred.stem)
        pairs.append(Pair(name.as_posix(), blurred, sharp))
    return pairs
