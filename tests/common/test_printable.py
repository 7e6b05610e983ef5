"""What is shown of text from outside: never obeyed by a terminal, never longer than a line or a name."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinanet.common.printable import amount, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("red cell", "red cell"),
        ("a\x1b[31mb\x1b]8;;x\x07", r"a\x1b[31mb\x1b]8;;x\x07"),
        ("\x9b31m\x85\x7f\x00", r"\x9b31m\x85\x7f\x00"),
        ("two\nlines\r\u2028\u2029", r"two\nlines\r\u2028\u2029"),
        ("photo\u202egpj.exe\u2066\u200f\ufeff\u200b", r"photo\u202egpj.exe\u2066\u200f\ufeff\u200b"),
        ("\udcff\ud800", r"\udcff\ud800"),
        ("[red]x[/] :car: \\x1b", "[red]x[/] :car: \\x1b"),
        ("日本　語 \u00a0é👩‍👩‍👧 \U0001fae8", "日本　語 \u00a0é👩‍👩‍👧 \U0001fae8"),
        (5, "5"),
    ],
)
def test_what_would_be_obeyed_is_escaped_and_letters_stay(text, shown):
    assert printable(text) == shown


@given(st.text(st.characters(exclude_categories=()), max_size=60), st.integers(8, 90))
def test_no_text_holds_what_is_obeyed_or_more_than_asked_and_twice_is_once(text, most):
    shown = printable(text, most)
    assert len(shown) <= most
    assert not {unicodedata.category(letter) for letter in shown} & {"Cc", "Cs", "Zl", "Zp"}
    assert printable(shown, most) == shown
    shown.encode()


def test_the_ends_of_a_long_text_stay():
    shown = printable("start" + 10**6 * "\x1b" + "end")
    assert shown.startswith("start")
    assert shown.endswith("end")
    assert len(shown) == 5000


def test_amounts_of_memory() -> None:
    assert [amount(count) for count in (28, 7_000, 2.5e6, 1.26e9)] == ["28 bytes", "7.0 kB", "2.5 MB", "1.3 GB"]
