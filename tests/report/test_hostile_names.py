"""Pages of data whose names were made to break out of them: nothing in them is an element, a script or invisible."""

import base64
import dataclasses
import hashlib
import json
import re

import pytest

from helpers.browser import browser, chromium
from helpers.data_page_facts import facts
from helpers.hostile_names import NAMES, obeyed
from helpers.run_page_facts import run_facts, write_set
from retinanet.analysis.doctor import Finding
from retinanet.report.data_page import write_data_page
from retinanet.report.run_page import write_run_page


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The page of a data set and that of a run, every text from outside hostile."""
    folder = tmp_path_factory.mktemp("hostile")
    root = write_set(folder, NAMES, boxes=4)
    notes = root / "annotations" / "instances_val.json"
    content = json.loads(notes.read_text())
    for image, name in zip(content["images"], NAMES[-len(content["images"]) :]):
        old, image["file_name"] = image["file_name"], name.replace("/", "|").replace("\0", "") + ".png"
        (root / "val" / old).rename(root / "val" / image["file_name"])
    notes.write_text(json.dumps(content))
    findings = [Finding("labels.x", "error", name, 1, name, name, (name,)) for name in NAMES]
    choices = [{"setting": name, "value": [name], "reason": name} for name in NAMES]
    inputs = facts(root, ("val",), findings=findings, choices=choices)
    surveys = dict.fromkeys(NAMES, inputs.surveys["val"])
    coverages = dict(zip(NAMES, inputs.coverages.values()))
    write_data_page(folder / "data.html", dataclasses.replace(inputs, surveys=surveys, coverages=coverages))
    write_run_page(folder / "run.html", run_facts(folder, root, choices=choices))
    return folder / "data.html", folder / "run.html"


def test_names_are_words_and_nothing_else(pages, sound):
    for path in pages:
        page = sound(path)  # reads the page: every element closed, no attribute twice, nothing fetched
        assert obeyed(page.text) == set()
        assert page.text.count("<script") == 1
        assert not re.findall(r"<[^>]*\son\w+=[^>]*>", re.sub(r'"[^"]*"', '""', page.text)), "a handler of events"
        assert "hacked=1" in page.said, "names are shown"
        assert r"\x1b[31m" in page.said
        assert r"photo\u202egnp.exe" in page.said
        assert "{{ 7 * 7 }}" in page.said


def test_the_policy_allows_the_page_its_own_script_alone(pages):
    for path in pages:
        text = path.read_text(encoding="utf-8")
        (script,) = re.findall("<script>(.*?)</script>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"script-src 'sha256-{digest}'\"" in text


@pytest.mark.slow
@pytest.mark.skipif(chromium() is None, reason="no Chromium is installed")
def test_a_browser_runs_nothing_but_the_pages_script(pages, tmp_path):
    pytest.importorskip("websockets", reason="websockets is not installed")
    with browser(tmp_path) as tab:
        for path in pages:
            tab.go(path.as_uri())
            assert tab.run("document.querySelectorAll('script').length") == 1
            assert tab.run("document.querySelectorAll('table.sortable th button').length") > 0, "its own script runs"
            assert tab.run("typeof hacked") == "undefined"
            assert [problem for problem in tab.problems() if "Content Security Policy" in problem] == []
