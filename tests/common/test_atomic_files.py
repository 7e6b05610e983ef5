"""A file is there whole or not at all, whatever its name and whoever else writes."""

import errno
import os

import pytest

from retinanet.common import atomic_files
from retinanet.common.atomic_files import beside, only_this, rename, replacing, what_is_wrong
from retinanet.common.errors import RequestError, WorkError


def write(path, text="new"):
    with replacing(path) as part:
        part.write_text(text)


def entries(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    "name", ["x" * 251 + ".txt", "ü" * 125 + ".json", "x" + "." + "y" * 253, "x" * 255, ".x", "a b.c"]
)
def test_every_name_that_the_system_takes(tmp_path, name):
    write(tmp_path / name)
    assert entries(tmp_path) == [name]
    assert (tmp_path / name).read_text() == "new"


@pytest.mark.parametrize("name", ["x" * 252 + ".txt", "ü" * 126 + ".json"])
def test_names_that_it_does_not_take(tmp_path, name):
    with pytest.raises(WorkError) as caught:
        write(tmp_path / name)
    assert str(caught.value) == f"cannot write {tmp_path / name}: file name too long"
    assert only_this(caught.value.__cause__)
    assert entries(tmp_path) == []


def test_the_file_beside_is_short_unique_and_has_the_ending(tmp_path):
    names = {beside(tmp_path / "model.onnx") for _ in range(1000)}
    assert len(names) == 1000, "two containers may have the same process id"
    assert {path.suffix for path in names} == {".onnx"}
    assert all(path.parent == tmp_path and path.name.startswith(".") and len(path.name) < 40 for path in names)


def fail(path, error, *also):
    with replacing(path, *also) as part:
        part.write_text("half")
        raise error


def test_errors_leave_what_was_there(tmp_path):
    path = tmp_path / "a.txt"
    write(path, "old")
    for error in (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), KeyboardInterrupt(), ValueError("no")):
        with pytest.raises((WorkError, type(error))) as caught:
            fail(path, error)
        if isinstance(error, OSError):
            assert str(caught.value) == f"cannot write {path}: no space left on device"
            assert not only_this(caught.value.__cause__)
        assert (entries(tmp_path), path.read_text()) == (["a.txt"], "old")


def test_what_a_library_raises_counts_where_it_is_named(tmp_path):
    with pytest.raises(WorkError) as caught:
        fail(tmp_path / "a.txt", ArithmeticError("no codec\nmore"), ArithmeticError)
    assert str(caught.value) == f"cannot write {tmp_path}/a.txt: no codec"
    assert entries(tmp_path) == []


def test_targets_that_cannot_be_replaced(tmp_path):
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    (tmp_path / "file").touch()
    for path, reason in {
        "folder": "is a directory",
        "file/a.txt": "not a directory",
        "missing/a.txt": "no such file or directory",
    }.items():
        with pytest.raises(WorkError) as caught:
            write(tmp_path / path)
        assert str(caught.value) == f"cannot write {tmp_path / path}: {reason}"
    assert entries(tmp_path) == ["file", "folder"]
    (tmp_path / "link").symlink_to("nothing")
    write(tmp_path / "link")
    assert (tmp_path / "link").read_text() == "new"


def test_a_folder_that_may_not_be_written_to(tmp_path):
    tmp_path.chmod(0o500)
    try:
        if os.access(tmp_path, os.W_OK):
            pytest.skip("this user may write everywhere")
        with pytest.raises(WorkError, match=r"permission denied$"):
            write(tmp_path / "a.txt")
    finally:
        tmp_path.chmod(0o700)


def test_words_for_errors():
    assert what_is_wrong(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))) == "no space left on device"
    assert what_is_wrong(OSError("encoder error -2")) == "encoder error -2"
    assert what_is_wrong(RuntimeError("first\nsecond")) == "first"
    assert not only_this(None)
    assert not only_this(RequestError("no"))
    assert only_this(OSError("encoder error -2"))


def test_a_file_that_another_program_holds_for_a_moment_is_waited_for(tmp_path, monkeypatch):
    """As on Windows, where a file that is read cannot be replaced."""
    monkeypatch.setattr(atomic_files, "WAITS", (0.0, 0.0, 0.0))
    real, held = os.replace, 3

    def replace(source, target):
        nonlocal held
        held -= 1
        if held >= 0:
            raise PermissionError(errno.EACCES, "access is denied")
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    write(tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_text() == "new"
    held = 9
    with pytest.raises(WorkError, match="access is denied"):
        write(tmp_path / "a.txt", "newer")
    assert held == 5
    assert entries(tmp_path) == ["a.txt"]
    (tmp_path / "folder").mkdir()
    held = 0
    rename(tmp_path / "folder", tmp_path / "renamed")
    assert entries(tmp_path) == ["a.txt", "renamed"]
