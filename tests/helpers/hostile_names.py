"""Names that a terminal, a browser, a spreadsheet or a list would obey instead of showing them."""

import unicodedata

NAMES = (
    "</script><script>hacked=1</script>",
    '" onmouseover="hacked=1" autofocus onfocus=\'hacked=1\' x="',
    "<!--<img src=x onerror=hacked=1>$x_1$",
    "<svg><use href=javascript:hacked=1><style>*{display:none}",
    "{{ 7 * 7 }}{% raw %}`--a`",
    "[red]x[/red][/][link=file:x]:car:",
    "\x1b[31m\x1b]0;title\x07\x1b[2J\x9b5m\r\x08\x00",
    "two\nlines\u2028three\u2029\x85",
    "photo\u202egnp.exe\u2066\ufeff",
    '=HYPERLINK("x")',
    "@sum(1)",
)  # fmt: skip


def obeyed(text):
    """The characters in a text that are not for reading, line feeds and joiners apart."""
    kinds = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    return {letter for letter in text if unicodedata.category(letter) in kinds} - set("\n\u200c\u200d")
