"""Text files: decoded by their byte order mark, else as UTF-8; what is neither is one line that names it."""

import os

import pytest

from retinanet.common.errors import RequestError
from retinanet.common.text import TextError, lines, read_text
from retinanet.config.recipes import read_yaml

TEXT = "a: é\r\nb: 猫\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_byte_order_marks(tmp_path, encoding):
    path = tmp_path / "a.yaml"
    path.write_bytes(TEXT.encode(encoding))
    assert read_text(path) == TEXT
    assert read_yaml(path) == {"a": "é", "b": "猫"}
    if encoding == "utf-16":
        path.write_bytes(b"\xfe\xff" + TEXT.encode("utf-16-be"))
        assert read_text(path) == TEXT


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"a\nb: caf\xe9\n", "not UTF-8 text (line 2, byte 0xe9"),
        (b"\xef\xbb\xbfa\n\n\xff", "not UTF-8 text (line 3, byte 0xff"),
        (b"\xff\xfea", "UTF-16-LE"),
        (b"\xff\xfe\0\0abc", "UTF-32-LE"),
        (b"a\0b\0", "UTF-16 without a byte order mark"),
        (b"\x89PNG\r\n\x1a\n\0\0", "it is not text"),
    ],
)
def test_what_is_no_text(tmp_path, content, reason):
    path = tmp_path / "a.yaml"
    path.write_bytes(content)
    for read in (read_text, read_yaml):
        with pytest.raises(RequestError) as error:
            read(path)
        assert str(path) in str(error.value)
        assert reason in str(error.value)
        assert "\n" not in str(error.value)


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # opened, it would wait for a writer
    for name, reason in (("", "is a directory"), ("none", "no such file"), ("pipe", "not a regular file")):
        with pytest.raises(TextError, match=reason):
            read_text(tmp_path / name)


def test_lines_end_at_line_ends_alone():
    assert lines("a\x0bb\x85c\u2028d\re\r\n\nf") == ["a\x0bb\x85c\u2028d", "e", "", "f"]
