"""The page in a real browser: everything that a user does with it."""

from __future__ import annotations

import base64
import io
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import helpers.serve_extra  # noqa: F401
from helpers.browser import Page, browser, chromium
from helpers.serving import Running, encoded, running, small_detector
from retinanet.inference.class_colours import colour, hexadecimal, text_colour
from retinanet.serve.limits import Limits

pytest.importorskip("websockets", reason="websockets is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(chromium() is None, reason="no Chromium is installed")]

FILES = """%s.map(([name, data]) => new File(
  [Uint8Array.from(atob(data), (c) => c.charCodeAt(0))], name, {type: name.endsWith("png") ? "image/png" : ""}))"""
HAND = """(() => {
  const moved = new DataTransfer();
  for (const file of %s) moved.items.add(file);
  document.dispatchEvent(new %s);
})()"""
DROP = 'DragEvent("drop", {dataTransfer: moved, bubbles: true, cancelable: true})'
PASTE = 'ClipboardEvent("paste", {clipboardData: moved, bubbles: true})'
# Saved files are kept in a variable instead of a download folder.
CATCH = """window.blobs = []; window.saved = [];
const make = URL.createObjectURL;
URL.createObjectURL = (blob) => { window.blobs.push(blob); return make(blob); };
HTMLAnchorElement.prototype.click = async function () {
  const data = new Uint8Array(await window.blobs.shift().arrayBuffer());
  window.saved.push([this.download, btoa(Array.from(data, (c) => String.fromCharCode(c)).join(""))]);
}"""


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(small_detector({"threshold": 0.4}), name="mine", limits=Limits(megabytes=1, megapixels=1)) as it:
        yield it


@pytest.fixture(scope="module")
def tab(server: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("chromium")) as page:
        yield page


@pytest.fixture
def page(tab: Page, server: Running) -> Iterator[Page]:
    tab.events.clear()
    tab.size(1280, 900)
    tab.go(f"{server.url}/")
    tab.until("document.querySelector('#class-names').textContent")
    yield tab
    assert [p for p in tab.problems() if '"exceptionDetails"' in p] == []
    assert {a.split("/")[2] for a in tab.urls() if a.startswith("http")} <= {f"127.0.0.1:{server.port}"}


def give(page: Page, *files: tuple[str, bytes], how: str = DROP) -> None:
    packed = json.dumps([[name, base64.b64encode(data).decode()] for name, data in files])
    page.run(HAND % (FILES % packed, how))


def wait_for_detections(page: Page) -> None:
    page.until("/detections above/i.test(document.querySelector('#status').textContent)")
    page.until("document.querySelector('#image').complete")


def slide(page: Page, percent: int) -> None:
    page.run(
        f"(t => {{ t.value = {percent}; t.dispatchEvent(new Event('input')) }})(document.querySelector('#threshold'))"
    )


def rows(page: Page) -> list[str]:
    return page.run("[...document.querySelectorAll('#detections button')].map((b) => b.getAttribute('aria-label'))")


def number(page: Page, selector: str) -> int:
    return page.run(f"document.querySelectorAll({selector!r}).length")


def answer(server: Running, data: bytes, percent: int) -> list[Any]:
    return server.predict(data, f"?threshold={percent / 100}").json["images"][0]["detections"]


@pytest.mark.parametrize("how", [DROP, PASTE])
def test_an_image_is_added(page: Page, server: Running, how: str) -> None:
    """The slider starts at the model's threshold; rows, boxes and status are those of the server's response."""
    assert page.run("document.querySelector('#model').textContent") == "mine"
    give(page, ("a.png", encoded(kind="PNG")), how=how)
    wait_for_detections(page)
    found = answer(server, encoded(kind="PNG"), 40)
    assert len(found) > 5
    assert page.run("document.querySelector('#threshold').value") == "40"
    assert [row.split(",")[0] for row in rows(page)] == [d["name"] for d in found]
    assert number(page, "#boxes .side") == len(found)
    drawn = page.run(
        "[...document.querySelectorAll('#boxes g.box')].map((g) => [+g.dataset.index, ...['x', 'y', 'width', 'height']"
        ".map((k) => +g.querySelector('.side').getAttribute(k))])"
    )
    for index, x, y, width, height in drawn:
        assert [x, y, x + width, y + height] == pytest.approx(found[index]["box"])
    assert page.run("document.querySelector('#status').textContent").startswith(f"{len(found)} detections above 40 %:")
    assert page.run("document.querySelector('#boxes').getAttribute('viewBox')") == "0 0 96 64"


def test_the_slider_ends_where_the_model_does(page: Page, server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(server.service.detector), "least_threshold", 0.25)
    page.go(f"{server.url}/")
    page.until("document.querySelector('#class-names').textContent")
    give(page, ("a.png", encoded(kind="PNG")))
    wait_for_detections(page)
    assert page.run("document.querySelector('#threshold').min") == "25"
    assert [a.split("?")[1] for a in page.urls() if "/predict" in a] == ["threshold=0.25"]


def test_threshold_and_classes_send_no_request(page: Page, server: Running) -> None:
    give(page, ("a.png", encoded(kind="PNG")))
    wait_for_detections(page)
    requests = sum("/predict" in a for a in page.urls())
    assert requests == 1
    for percent in (10, 70, 40):
        slide(page, percent)
        assert len(rows(page)) == len(answer(server, encoded(kind="PNG"), percent))
    slide(page, 99)
    page.until("document.querySelector('#status').textContent.startsWith('No detections above 99 %')")
    slide(page, 20)
    found = answer(server, encoded(kind="PNG"), 20)
    names = [d["name"] for d in found]
    shown = page.run(
        "[...document.querySelectorAll('#classes label')].map((l) => [l.textContent.replace(/\\d+$/, ''), "
        "+l.querySelector('b').textContent])"
    )
    assert {name: count for name, count in shown if count} == {name: names.count(name) for name in set(names)}
    first = shown[0][0]
    page.run("document.querySelector('#classes input').click()")
    assert len(rows(page)) == number(page, "#boxes .side") == len(found) - names.count(first)
    assert not any(row.startswith(first) for row in rows(page))
    page.run("document.querySelector('#none').click()")
    assert rows(page) == []
    page.run("document.querySelector('#all').click()")
    assert len(rows(page)) == len(found)
    assert sum("/predict" in a for a in page.urls()) == requests


def test_a_row_and_its_box_light_up_together(page: Page) -> None:
    give(page, ("a.png", encoded(kind="PNG")))
    wait_for_detections(page)
    page.run("document.querySelectorAll('#detections button')[2].focus()")
    assert page.run("document.querySelector('#boxes .highlighted').dataset.index") == "2"
    page.run("document.activeElement.blur()")
    assert number(page, "#boxes .highlighted") == 0
    x, y = page.run(
        "(r => [r.left + r.width / 2, r.top + r.height / 2])"
        "(document.querySelectorAll('#detections button')[1].getBoundingClientRect())"
    )
    page.move(x, y)
    assert page.run("document.querySelector('#boxes .highlighted').dataset.index") == "1"
    x, y = page.run(
        "(r => [r.left + r.width / 2, r.top + r.height / 2])"
        "([...document.querySelectorAll('#boxes g:not(.highlighted) .side')].at(-1).getBoundingClientRect())"
    )
    page.move(1270, 890)
    page.move(x, y)
    lit = page.until("document.querySelector('#detections .highlighted')?.dataset.index")
    assert lit == page.run("document.querySelector('#boxes .highlighted').dataset.index")
    page.click(x, y)
    assert page.run("document.activeElement.dataset.index") == lit


def test_saving(page: Page, server: Running) -> None:
    image = encoded(200, 120, "PNG")
    give(page, ("my street.png", image))
    wait_for_detections(page)
    page.run(CATCH)
    slide(page, 60)
    page.run("document.querySelector('#save-json').click(); document.querySelector('#save-image').click()")
    page.until("window.saved.length === 2")
    files = {name: base64.b64decode(data) for name, data in page.run("window.saved")}
    content = json.loads(files["my street-detections.json"])
    found = answer(server, image, 60)
    assert content["detections"] == found
    expected = {"file": "my street.png", "width": 200, "height": 120, "threshold": 0.6}
    assert {key: content[key] for key in expected} == expected
    with Image.open(io.BytesIO(files["my street-detections.png"])) as drawn, Image.open(io.BytesIO(image)) as plain:
        assert drawn.size == (200, 120)
        difference = np.abs(np.asarray(drawn.convert("RGB")).astype(int) - np.asarray(plain))
        changed = int((difference.max(axis=2) > 30).sum())
        assert 0.01 * 24000 < changed < 24000
        labels = {detection["label"] for detection in found}
        assert all((np.asarray(drawn.convert("RGB")) == colour(label)).all(axis=2).any() for label in labels)


def test_colours_are_those_of_drawn_files(page: Page, server: Running) -> None:
    count = len(server.service.detector.class_names)
    assert server.get("/health").json["colours"] == [hexadecimal(colour(label)) for label in range(count)]
    give(page, ("a.png", encoded(kind="PNG")))
    wait_for_detections(page)
    found = answer(server, encoded(kind="PNG"), 40)
    drawn = page.run(
        "[...document.querySelectorAll('#boxes g.box')].map((g) => [+g.dataset.index, "
        "g.querySelector('.side').getAttribute('stroke')])"
    )
    assert len(drawn) == len(found)
    assert all(stroke == hexadecimal(colour(found[index]["label"])) for index, stroke in drawn)
    ours = [colour(label) for label in range(300)]
    texts = page.run(
        f"import('./drawing.js').then((m) => {json.dumps([hexadecimal(rgb) for rgb in ours])}.map(m.textColour))"
    )
    assert texts == [hexadecimal(text_colour(rgb)) for rgb in ours]


def test_labels_lie_above_all_lines_and_hide_no_other_label(page: Page) -> None:
    give(page, ("a.png", encoded(640, 400, "PNG")))
    wait_for_detections(page)
    parts = page.run("[...document.querySelectorAll('#boxes g')].map((g) => g.classList[0])")
    assert parts == sorted(parts)  # box, ..., label
    areas = page.run(
        "[...document.querySelectorAll('#boxes .chip')].map((c) => ['x', 'y', 'width', 'height']"
        ".map((k) => +c.getAttribute(k)))"
    )
    assert len(areas) > 3
    for (x, y, w, h), (u, v, s, t) in itertools.combinations(areas, 2):
        shared = max(0, min(x + w, u + s) - max(x, u)) * max(0, min(y + h, v + t) - max(y, v))
        assert shared <= 0.031 * max(w * h, s * t)
    for x, y, w, h in areas:
        assert x >= 0
        assert y >= 0
        assert x + w <= 640.01
        assert y + h <= 400.01


def test_errors_are_shown(page: Page) -> None:
    give(page, ("notes.txt", b"hello"))
    message = page.until("document.querySelector('#error').textContent")
    assert message.startswith("notes.txt cannot be used: ")
    assert "not an image" in message
    assert page.run("document.querySelector('#error').getAttribute('role')") == "alert"
    assert page.run("document.querySelector('#work').hidden")
    give(page, ("huge.jpg", bytes(1_500_000)))
    page.until("document.querySelector('#error').textContent.includes('1.5 MB')")
    give(page, ("wide.png", encoded(1100, 1000, "PNG")))
    page.until("document.querySelector('#error').textContent.includes('1 megapixels')")
    give(page)
    page.until("document.querySelector('#error').textContent.startsWith('There was no image')")
    give(page, ("a.png", encoded(kind="PNG")))  # it still works
    wait_for_detections(page)
    assert page.run("document.querySelector('#error').hidden")


def test_several_images_in_a_row(page: Page) -> None:
    give(page, ("a.png", encoded(kind="PNG")), ("b.txt", b"hello"), ("c.png", encoded(64, 96, "PNG", 5)))
    wait_for_detections(page)
    page.until("!document.querySelector('#strip').textContent.includes('…')")
    assert number(page, "#strip button") == 3
    page.run("document.querySelectorAll('#strip button')[2].click()")
    page.until("document.querySelector('#caption').textContent.startsWith('c.png, 64 × 96')")
    assert number(page, "#strip [aria-pressed=true]") == 1
    page.run("document.querySelectorAll('#strip button')[1].click()")
    page.until("document.querySelector('#error').textContent.startsWith('b.txt')")


def test_a_turned_photo(page: Page) -> None:
    """The browser rotates it as the server does."""
    exif = Image.Exif()
    exif[0x0112] = 6
    give(page, ("a.jpg", encoded(200, 120, exif=exif)))
    wait_for_detections(page)
    sizes = page.run("(p => [p.naturalWidth, p.naturalHeight])(document.querySelector('#image'))")
    assert sizes == [120, 200]
    assert page.run("document.querySelector('#boxes').getAttribute('viewBox')") == "0 0 120 200"


def test_a_kind_that_the_browser_cannot_show(page: Page) -> None:
    give(page, ("a.tif", encoded(200, 120, "TIFF")))
    wait_for_detections(page)
    page.until("document.querySelector('#caption').textContent.includes('cannot show')")
    assert number(page, "#boxes .side") > 0
    assert page.run("document.querySelector('#boxes').getBoundingClientRect().width") > 100


@pytest.mark.parametrize("dark", [False, True])
def test_on_a_phone(page: Page, dark: bool) -> None:
    page.size(390, 844, dark, phone=True)
    give(page, ("a-very-long-name-" * 8 + ".png", encoded(900, 300, "PNG")), ("b.png", encoded(kind="PNG")))
    wait_for_detections(page)
    assert page.run("document.documentElement.scrollWidth") <= 390
    small = page.run(
        "[...document.querySelectorAll('.button, #strip button, #detections button, #classes label')]"
        ".filter((e) => e.offsetParent && e.getBoundingClientRect().height < 32).map((e) => e.outerHTML)"
    )
    assert small == []
    assert page.run("getComputedStyle(document.querySelector('label[for=camera]')).display") != "none"
    assert page.run("document.querySelector('#camera').getAttribute('capture')") == "environment"


def test_by_keyboard_alone(page: Page) -> None:
    """Tab reaches everything in reading order, and every control has a name."""
    give(page, ("a.png", encoded(kind="PNG")))
    wait_for_detections(page)
    page.run("document.body.focus()")
    stops = []
    for _ in range(9):
        page.press("Tab", 9)
        stops.append(page.run("document.activeElement.id || document.activeElement.closest('[id]')?.id || 'skip'"))
    assert [stop for stop in stops if stop != "skip"][:2] == ["file", "threshold"]
    assert "classes" in stops
    assert stops.index("all") < stops.index("none") < stops.index("detections")
    page.run("document.querySelector('#threshold').focus()")
    before = page.run("document.querySelector('#threshold').value")
    page.press("ArrowRight", 39)
    assert int(page.run("document.querySelector('#threshold').value")) == int(before) + 1
    nameless = page.run(
        "[...document.querySelectorAll('input, button')].filter((e) => !(e.labels?.length || e.textContent.trim()"
        " || e.getAttribute('aria-label'))).map((e) => e.outerHTML)"
    )
    assert nameless == []


CONTRAST = """(() => {
  const pen = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgb = (colour) => { pen.clearRect(0, 0, 1, 1); pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1);
    return [...pen.getImageData(0, 0, 1, 1).data]; };
  const light = (colour) => colour.slice(0, 3).map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const under = (e) => { for (; e; e = e.parentElement) {
    const c = rgb(getComputedStyle(e).backgroundColor); if (c[3] === 255) return c; } return [255, 255, 255]; };
  const bad = [];
  for (const e of document.querySelectorAll("body *:not(svg *)")) {
    if (![...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()) || !e.checkVisibility()) continue;
    if (e.closest(".skip, noscript, script, #strip")) continue;
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(under(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) bad.push([e.outerHTML.slice(0, 80), ratio]);
  }
  return bad;
})()"""


@pytest.mark.parametrize("dark", [False, True])
def test_text_can_be_read(page: Page, dark: bool) -> None:
    """All visible text has WCAG's contrast of 4.5, in both colour schemes."""
    page.size(1280, 900, dark)
    give(page, ("a.png", encoded(kind="PNG")))
    wait_for_detections(page)
    paper = page.run("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(21, 23, 27)") == dark
    assert page.run(CONTRAST) == []
    give(page, ("notes.txt", b"hello"))
    page.until("!document.querySelector('#error').hidden")
    assert page.run(CONTRAST) == []


def test_the_page_for_programs(tab: Page, server: Running) -> None:
    tab.events.clear()
    tab.size(390, 844)
    tab.go(f"{server.url}/docs")
    assert f"http://127.0.0.1:{server.port}/predict?threshold=0.5" in tab.run(
        "document.querySelector('pre').textContent"
    )
    assert ":8000" not in tab.run("document.querySelector('main').textContent")
    assert tab.run("document.documentElement.scrollWidth") <= 390
    assert {a.split("/")[2] for a in tab.urls() if a.startswith("http")} == {f"127.0.0.1:{server.port}"}
    assert tab.problems() == []


def test_the_page_asks_for_the_token(tab: Page) -> None:
    """After a wrong token it asks again; with the right one it works, also after a reload."""
    from retinanet.serve.token import Token

    def give_token(text: str) -> None:
        tab.run(f"(t => {{ t.value = {json.dumps(text)}; t.form.requestSubmit() }})(document.querySelector('#token'))")

    with running(small_detector({"threshold": 0.4}), name="mine", token=Token("right")) as locked:
        tab.events.clear()
        tab.go(f"{locked.url}/")
        tab.until("!document.querySelector('#token-form').hidden")
        assert tab.run("document.querySelector('#drop').hidden")
        give_token("wrong")
        tab.until("document.querySelector('#error').textContent.includes('token is wrong')")
        give_token("right")
        tab.until("document.querySelector('#class-names').textContent")
        assert tab.run("document.querySelector('#token-form').hidden && document.querySelector('#error').hidden")
        give(tab, ("a.png", encoded(kind="PNG")))
        wait_for_detections(tab)
        assert rows(tab)
        tab.go(f"{locked.url}/")
        tab.until("document.querySelector('#class-names').textContent")
        assert [p for p in tab.problems() if '"exceptionDetails"' in p] == []


def test_names_of_files_are_text(page: Page) -> None:
    """HTML and escape codes in a file name have no effect on the page."""
    page.run("window.obeyed = 0")
    give(page, ("<img src=x onerror=window.obeyed=1>\x1b[31m.png", encoded(kind="PNG")), ("<b>b.txt", b"hello"))
    wait_for_detections(page)
    page.until("document.querySelectorAll('#strip button').length === 2")
    page.run("document.querySelectorAll('#strip button')[1].click()")
    page.until("document.querySelector('#error').textContent.includes('<b>b.txt')")
    assert page.run("window.obeyed") == 0
    assert number(page, "#caption img, #error b, #status img") == 0


def test_without_a_server(page: Page, server: Running) -> None:
    page.call("Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=-1, uploadThroughput=-1)
    try:
        give(page, ("a.png", encoded(kind="PNG")))
        page.until("document.querySelector('#error').textContent.includes('the server does not respond')")
    finally:
        page.call(
            "Network.emulateNetworkConditions", offline=False, latency=0, downloadThroughput=-1, uploadThroughput=-1
        )


def test_screenshot_is_no_blank(page: Page, tmp_path: Path) -> None:
    """The boxes are visible: their colours are in the screenshot."""
    give(page, ("a.png", encoded(800, 500, "PNG")))
    wait_for_detections(page)
    slide(page, 95)
    page.shot(tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as shot:
        colours = {colour for _, colour in shot.convert("RGB").getcolors(1 << 24) or []}
    wanted = page.run(
        "[...document.querySelectorAll('#boxes .chip')].map((c) => { const p = document.createElement('canvas')"
        ".getContext('2d'); p.fillStyle = getComputedStyle(c).fill; p.fillRect(0, 0, 1, 1);"
        " return [...p.getImageData(0, 0, 1, 1).data].slice(0, 3) })"
    )
    assert wanted
    assert all(any(max(abs(a - b) for a, b in zip(c, w)) <= 2 for c in colours) for w in map(tuple, wanted))
