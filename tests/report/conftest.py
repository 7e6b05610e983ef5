"""A parser of pages, which refuses HTML that a browser would repair."""

import re
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import pytest

from helpers.run_page_facts import run_facts, write_set

VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """A parsed page: its ids, headings, links, the files it fetches, its images and its words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.open, self.ids, self.links = text, [], [], []
        self.headings, self.fetched, self.words, self.images, self.classes = [], [], [], [], []
        self.labels = []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        if tag not in VOID:
            self.open.append(tag)
        self.handle_startendtag(tag, attributes)

    def handle_startendtag(self, tag, attributes):
        values = dict(attributes)
        assert len(values) == len(attributes), f"an attribute twice: {attributes}"
        if "id" in values:
            self.ids.append(values["id"])
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        for name in ("src", "href", "xlink:href", "action", "srcset", "poster"):
            if name in values:
                (self.links if values[name].startswith("#") else self.fetched).append(values[name])
        self.links += re.findall(r"url\((#[^)]*)\)", " ".join(filter(None, values.values())))
        self.labels += [f"#{name}" for name in values.get("aria-labelledby", "").split()]
        if tag in ("img", "svg"):
            self.images.append(values)
        self.classes += (values.get("class") or "").split()

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> does not close the innermost element"

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def said(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture
def sound():
    """Parses a page and checks what holds for all pages."""

    def check(path: Path) -> Page:
        text = path.read_text(encoding="utf-8")
        page = Page(text)
        assert page.headings[0] == 1
        assert page.headings.count(1) == 1
        assert all(b - a <= 1 for a, b in zip(page.headings, page.headings[1:]))  # none is left out
        assert len(page.ids) == len(set(page.ids)), sorted(name for name in page.ids if page.ids.count(name) > 1)
        assert {link[1:] for link in page.links + page.labels} <= set(page.ids)
        assert all(link.startswith("data:") for link in page.fetched), page.fetched
        assert "@import" not in text
        assert re.sub(r'xmlns(:\w+)?="http://www\.w3\.org/[^"]*"', "", text).count("://") == 0
        assert all(image.get("alt") or image.get("aria-label") for image in page.images)
        assert "#0102" not in text, "a stand-in for a colour of the page is left"
        assert "nan" not in re.findall(r"[a-z]+", page.said)
        assert "None" not in page.said
        assert len(text) < 3_000_000
        return page

    return check


@pytest.fixture
def make_set(tmp_path):
    return partial(write_set, tmp_path)


@pytest.fixture
def run(tmp_path):
    return partial(run_facts, tmp_path)
