"""The documentation site: it builds without a warning, is complete, and needs no network."""

import inspect
import os
import subprocess
import sys
from dataclasses import dataclass, field, fields, is_dataclass
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import retinanet
from retinanet.cli import VERBS
from retinanet.config.convert import dotted, to_plain
from retinanet.config.recipes import recipes
from retinanet.config.settings import Settings
from retinanet.ops import boxes

ROOT = Path(__file__).parent.parent

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("mkdocs") is None, reason="the extra [docs] is not installed"),
]


@dataclass
class Page(HTMLParser):
    """A page's text, the anchors in it, its links, and what a browser loads for it."""

    ids: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value for name, value in attrs if value is not None}
        self.ids |= {values[name] for name in ("id", "name") if name in values}
        target = values.get("href") or values.get("src")
        if target is not None:
            (self.links if tag == "a" else self.loaded).append(target)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Page]:
    """The pages of the built site by their files."""
    folder = tmp_path_factory.mktemp("site")
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    # Not --quiet: with it MkDocs does not count warnings, and strict has no effect.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    pages = {}
    for path in folder.rglob("*.html"):
        pages[path] = Page()
        pages[path].feed(path.read_text(encoding="utf-8"))
    return pages


def page(site: dict[Path, Page], name: str) -> Page:
    return next(found for path, found in site.items() if path.as_posix().endswith(f"/{name}.html"))


def test_public_names(site: dict[Path, Page]) -> None:
    reference = page(site, "api/index")
    names = {f"retinanet.{name}" for name in retinanet.__all__}
    assert names - {"retinanet.__version__"} <= reference.ids
    assert "retinanet.__version__" in reference.text


def test_public_methods(site: dict[Path, Page]) -> None:
    kinds = (retinanet.Detector, retinanet.Detections)
    names = {
        f"retinanet.{k.__name__}.{n}" for k in kinds for n in vars(k) if inspect.isfunction(vars(k)[n]) and n[0] != "_"
    }
    assert names <= page(site, "api/index").ids


def test_command_line(site: dict[Path, Page]) -> None:
    reference = page(site, "cli")
    assert {verb.__name__ for verb in VERBS} <= reference.ids
    settings = [f"--{name.replace('_', '-')}" for name in dotted(to_plain(Settings()))]
    assert [name for name in settings if name not in reference.text] == []


def test_settings_in_python(site: dict[Path, Page]) -> None:
    missing, todo = [], [Settings()]
    while todo:
        section = todo.pop()
        name = f"{type(section).__module__}.{type(section).__name__}"
        names = [f"{name}.{f.name}" for f in fields(section)]
        missing += [name for name in names if name not in page(site, "api/settings").ids]
        todo += [value for value in vars(section).values() if is_dataclass(value)]
    assert missing == []


def test_recipes(site: dict[Path, Page]) -> None:
    assert set(recipes()) <= page(site, "settings").ids


def test_excerpts_are_the_source(site: dict[Path, Page]) -> None:
    text = page(site, "paper-code").text
    assert inspect.getsource(boxes.encode).strip() in text
    assert "<!--" not in text


def test_links(site: dict[Path, Page]) -> None:
    broken = []
    for path, found in site.items():
        for link in found.links + found.loaded:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or path.name == "404.html":  # that one has absolute links
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchors = site[target].ids if target in site else set()
            if not target.is_file() or (parts.fragment and target in site and unquote(parts.fragment) not in anchors):
                broken.append(f"{path.name}: {link}")
    assert broken == []


def test_nothing_is_loaded_from_another_host(site: dict[Path, Page]) -> None:
    assert {url for found in site.values() for url in found.loaded if urlsplit(url).netloc} == set()
