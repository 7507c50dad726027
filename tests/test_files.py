"""Files that are written whole or not at all, and errors that name them."""

from __future__ import annotations

import errno
import os
import stat

import pytest

from gkm_ops.files import replacing


def full(*arguments):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def write(path, then=lambda: None):
    with replacing(path) as file:
        file.write(b"notes")
        then()


@pytest.mark.parametrize("failing", ["write", "fsync", "replace"])
def test_an_error_names_the_file(tmp_path, monkeypatch, failing):
    path = tmp_path / "notes.txt"
    path.write_text("older notes")
    if failing != "write":
        monkeypatch.setattr(os, failing, full)
    with pytest.raises(OSError, match=r"No space left on device: '.*notes.txt'") as caught:
        write(path, *([full] if failing == "write" else []))
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))
    assert path.read_text() == "older notes"
    assert list(tmp_path.iterdir()) == [path]


def test_the_name_is_not_the_one_that_it_has_meanwhile(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        write(tmp_path / "absent/notes.txt")
    assert caught.value.filename == str(tmp_path / "absent/notes.txt")
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        write(tmp_path / "folder")
    assert (caught.value.filename, caught.value.filename2) == (str(tmp_path / "folder"), None)


def test_what_a_link_points_to_is_replaced(tmp_path):
    (tmp_path / "disk").mkdir()
    path, target = tmp_path / "notes.txt", tmp_path / "disk/notes.txt"
    path.symlink_to(target)
    for _ in ("where nothing is yet", "where it is"):
        write(path)
        assert path.is_symlink()
        assert list(target.parent.iterdir()) == [target]
        assert target.read_text() == "notes"
    path.unlink()
    path.symlink_to(tmp_path / "absent/notes.txt")
    with pytest.raises(FileNotFoundError) as caught:
        write(path)
    assert caught.value.filename == str(path)


def test_a_file_keeps_its_mode(tmp_path):
    def mode(path):
        return stat.S_IMODE(path.stat().st_mode)

    path, other = tmp_path / "notes.txt", tmp_path / "other.txt"
    other.touch()
    write(path)
    assert mode(path) == mode(other)
    path.chmod(0o600)
    meanwhile = []
    write(path, lambda: meanwhile.extend(mode(each) for each in tmp_path.glob(".*.part")))
    assert [*meanwhile, mode(path)] == [0o600, 0o600]


def test_errors_about_other_files_stay_as_they_are(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        write(tmp_path / "notes.txt", (tmp_path / "absent.txt").read_text)
    assert caught.value.filename == str(tmp_path / "absent.txt")

    def encoder():
        raise OSError("an encoder's words")

    with pytest.raises(OSError, match=r"^an encoder's words$"):
        write(tmp_path / "notes.txt", encoder)
