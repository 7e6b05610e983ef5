"""What the README and the docs show works: Python runs, commands are understood, what is named is there."""

import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

import retinanet
from helpers.tiny_run import tiny
from retinanet.checkpoints import locate
from retinanet.cli import app
from retinanet.config import recipes
from retinanet.model import RetinaNet

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))]


def blocks(language, text=TEXT):
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(texts=(TEXT, *DOCS)):
    lines = [
        line.split("#")[0].strip() for text in texts for block in blocks("sh", text) for line in block.splitlines()
    ]
    return [line for line in lines if line.startswith("retinanet ")]


def test_python(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = tiny().model
    detector = retinanet.Detector(RetinaNet(settings, 2), ["red", "green"])
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    detector.save("runs/mine/best.safetensors")
    Image.new("RGB", (90, 60)).save("image.jpg")
    (code,) = blocks("python")
    exec(compile(code, "README.md", "exec"), {})
    assert (tmp_path / "found.png").exists()


def test_there_are_commands():
    named = {shlex.split(command)[1] for command in commands([TEXT])}
    assert named == {
        "demo",
        "data",
        "train",
        "evaluate",
        "predict",
        "convert",
        "export",
        "serve",
        "push",
        "bench",
        "paper",
    }


@pytest.mark.parametrize("command", commands())
def test_command_is_understood(command):
    _, bound, ignored = app.parse_args(shlex.split(command)[1:], exit_on_error=False, print_error=False)
    assert not ignored
    config = bound.arguments.get("config")
    if config is not None:
        recipes.load(config, bound.arguments.get("settings"))


def test_public_checkpoints_are_sources():
    """Each command of the table names what can be downloaded, by a name that is understood."""
    table = (ROOT / "docs" / "checkpoints.md").read_text(encoding="utf-8").split("## Public checkpoints")[1]
    named = re.findall(r"`retinanet convert (\S+) FILE\.safetensors`", table)
    kinds = [locate.recognise(name).kind for name in named]
    assert len(set(named)) == len(named) == sum(line.startswith("| ") for line in table.splitlines()) - 1
    assert {kind: kinds.count(kind) for kind in kinds} == {"torchvision": 2, "url": 28, "hub": 3}


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#:]+)\)", TEXT))
def test_link_leads_somewhere(target):
    assert (ROOT / target).exists()


def test_every_recipe_is_named():
    assert all(f"`{name}`" in TEXT for name in recipes.recipes())
