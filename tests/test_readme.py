"""What README, CONTRIBUTING and the docs show works: Python runs, commands are understood, links lead somewhere."""

import ast
import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

import retinanet
from helpers.tiny_run import tiny
from retinanet.checkpoints import locate
from retinanet.cli import VERBS, app
from retinanet.config import recipes
from retinanet.model import RetinaNet

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
RUNNABLE = [
    "README.md",
    "docs/getting-started.md",
    "docs/settings.md",
    "docs/api/index.md",
    "docs/tutorials/researcher.md",
]
"""Pages whose Python needs nothing but a run folder and an image."""


def blocks(path, language):
    text = path.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(paths):
    """All distinct commands of the pages' shell blocks."""
    lines = [
        line.split("#")[0].strip() for path in paths for block in blocks(path, "sh") for line in block.splitlines()
    ]
    return list(dict.fromkeys(line for line in lines if line.startswith("retinanet ")))


@pytest.mark.parametrize("page", RUNNABLE)
def test_python(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = tiny().model
    detector = retinanet.Detector(RetinaNet(settings, 2), ["red", "green"])
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    detector.save("runs/mine/best.safetensors")
    Image.new("RGB", (90, 60)).save("image.jpg")
    code = blocks(ROOT / page, "python")
    assert code
    for block in code:
        exec(compile(block, page, "exec"), {})
    if page == "README.md":
        assert (tmp_path / "found.png").exists()


def test_readme_is_short_and_names_every_command():
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 120
    assert [shlex.split(command)[1] for command in commands([README])] == ["data", "train", "evaluate", "predict"]
    assert [
        verb.__name__
        for verb in VERBS
        if not re.search(rf"`(retinanet )?{verb.__name__}[` ]|retinanet {verb.__name__} ", text)
    ] == []
    assert "make demo" in text
    assert "make test" in text


def test_docs_show_every_command():
    assert {shlex.split(command)[1] for command in commands(PAGES)} >= {verb.__name__ for verb in VERBS} - {"demo"}


@pytest.mark.parametrize("command", commands(PAGES))
def test_command_is_understood(command):
    _, bound, ignored = app.parse_args(shlex.split(command)[1:], exit_on_error=False, print_error=False)
    assert not ignored
    config = bound.arguments.get("config")
    if config is not None and not config.endswith(".yaml"):
        recipes.load(config, bound.arguments.get("settings"))


def test_public_checkpoints_are_sources():
    """Each command of the table names what can be downloaded, by a name that is understood."""
    table = (ROOT / "docs" / "checkpoints.md").read_text(encoding="utf-8").split("## Public checkpoints")[1]
    named = re.findall(r"`retinanet convert (\S+) FILE\.safetensors`", table)
    kinds = [locate.recognise(name).kind for name in named]
    assert len(set(named)) == len(named) == sum(line.startswith("| ") for line in table.splitlines()) - 1
    assert {kind: kinds.count(kind) for kind in kinds} == {"torchvision": 2, "url": 28, "hub": 3}


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#:]+)\)", README.read_text(encoding="utf-8")))
def test_link_leads_somewhere(target):
    assert (ROOT / target).exists()


@pytest.mark.parametrize(
    "page", [README, ROOT / "CONTRIBUTING.md", ROOT / "docs" / "performance.md", ROOT / "docs" / "paper-code.md"]
)
def test_named_files_exist(page):
    """Files of the package, the tests and the benchmarks, which pages name without a link."""
    named = re.findall(r"`(?:python )?((?:\w+/)+\w+\.(?:py|md|yaml))", page.read_text(encoding="utf-8"))
    named = [name for name in named if not re.search(r"FORMAT|NAME", name)]
    homes = (ROOT, ROOT / "src" / "retinanet", ROOT / "src")
    assert [name for name in named if not any((home / name).exists() for home in homes)] == []


def test_every_recipe_is_named():
    text = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert [name for name in recipes.recipes() if f"`{name}`" not in text] == []


def test_contributing_has_the_floors_of_the_architecture():
    architecture = (ROOT / "tests" / "test_architecture.py").read_text(encoding="utf-8")
    floors = ast.literal_eval(re.search(r"^FLOORS = (\(.*?^\))", architecture, re.MULTILINE | re.DOTALL)[1])
    rows = re.findall(r"^\| (\d+) \| ([^|]*) \|", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert {int(number): set(re.findall(r"`(\w+)`", names)) for number, names in rows} == dict(enumerate(floors, 1))
