"""What a run starts from: the best that can be had and afforded, and a line about it. The web is a server here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save, save_file
from torch import Tensor

from helpers.hub_server import HubServer, Repository
from helpers.synthetic_data import black_images, rectangles
from helpers.tiny_run import TINY
from retinanet.checkpoints import pretrained_weights
from retinanet.checkpoints.pretrained_weights import COCO, PretrainedWeights
from retinanet.cli import main
from retinanet.common.errors import RequestError, WorkError
from retinanet.config import recipes
from retinanet.config.settings import Settings
from retinanet.data import DetectionData
from retinanet.training import events, fitted_defaults, network_choice, start_choice, step_cost
from retinanet.training.step_cost import Machine

HERE = Machine(torch.device("cpu"), "fp32", 1, 0)
LIGHT = "mobilenetv2_100"
SMALL = {"model": {"preprocessing": {"size": 64, "longer": 96}}}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DetectionData:
    """Sixty-four pixels, two objects of about twenty in each image."""
    boxes = [(4, 6, 22, 28, 0), (30, 20, 52, 40, 1)]
    return black_images(tmp_path_factory.mktemp("data"), [((64, 64), boxes)] * 16)


@pytest.fixture(autouse=True)
def cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial takes seconds; here each image costs the same."""
    for module in (network_choice, fitted_defaults):
        monkeypatch.setattr(module, "measure", lambda *_: step_cost.Cost(0.05, 1e6))


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the hub's and torch.hub's caches, which are empty."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "torch"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


@pytest.fixture
def web(caches: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A server that stands for the hub and for torchvision's downloads."""
    server = HubServer()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(pretrained_weights, "_coco_url", lambda: f"{server.url}/coco.pth")
    monkeypatch.setattr(network_choice, "ON_CPU", (LIGHT,))
    yield server
    server.stop()


def weights(name: str) -> dict[str, Tensor]:
    torch.manual_seed(7)
    state: dict[str, Tensor] = timm.create_model(name).state_dict()
    return state


def publish(web: HubServer, name: str = LIGHT) -> dict[str, Tensor]:
    state, repository = weights(name), Repository()
    repository.commit({"model.safetensors": save(state)})
    web.repositories[timm.get_pretrained_cfg(name).hf_hub_id] = repository
    return state


def in_hub_cache(caches: Path, name: str = LIGHT) -> None:
    repository = caches / "hub" / f"models--{timm.get_pretrained_cfg(name).hf_hub_id.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("a1b2")
    (repository / "snapshots" / "a1b2").mkdir(parents=True)
    save_file(weights(name), repository / "snapshots" / "a1b2" / "model.safetensors")


def fitted(data: DetectionData, given: dict[str, Any]) -> tuple[Settings, str, list[events.Event]]:
    heard: list[events.Event] = []
    settings, choices = fitted_defaults.fit(given, None, data, data, HERE, heard.append)
    (start,) = [choice for choice in choices if choice.setting == "train.weights"]
    assert start.value == settings.train.weights
    assert "\n" not in start.reason
    return settings, start.reason, heard


def budget(text: str, **train: Any) -> dict[str, Any]:
    return {**SMALL, "train": {"budget": text, **train}}


def test_imagenet_weights_from_the_web(web: HubServer, data: DetectionData) -> None:
    publish(web)
    settings, line, heard = fitted(data, budget("10s"))
    assert settings.train.weights == "none"
    assert (settings.model.backbone.name, settings.model.backbone.weights) == (LIGHT, "imagenet")
    assert settings.model.backbone.frozen_norm
    assert settings.model.backbone.frozen_stages == 3
    assert settings.train.backbone_lr == network_choice.BACKBONE_LR
    assert line.startswith(f"ImageNet weights of {LIGHT} (downloaded, 14 MB in ")
    assert COCO in line, "why the better start was not taken"
    progress = [event for event in heard if isinstance(event, events.Downloading)]
    assert progress[-1].done == progress[-1].total > 10e6
    again = fitted(data, budget("10s"))
    assert again[1].startswith(f"ImageNet weights of {LIGHT} (from the cache)")
    assert not again[2]


@pytest.mark.slow
def test_coco_weights_where_they_can_be_afforded(
    web: HubServer, data: DetectionData, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.models import detection

    torch.manual_seed(0)
    theirs = detection.retinanet_resnet50_fpn_v2(weights=None, weights_backbone=None, num_classes=91).state_dict()
    folder = pretrained_weights.cache_path(f"{web.url}/coco.pth")
    folder.parent.mkdir(parents=True)
    torch.save(theirs, folder)
    monkeypatch.setattr("retinanet.training.start_choice.COCO", str(folder))
    monkeypatch.setattr("retinanet.checkpoints.pretrained_weights.COCO", str(folder))
    settings, line, _ = fitted(data, budget("1h"))
    assert settings.train.weights == str(folder)
    assert settings.model.backbone.name == "resnet50"
    assert settings.model.anchors.strides == "torchvision", "its conventions and anchors stay"
    assert line.startswith("COCO weights")
    settings, line, _ = fitted(data, {**budget("1h"), "model": {"head": {"width": 32}}})
    assert settings.train.weights == "none", "a network of the user's own is not replaced"


def test_no_network(web: HubServer, data: DetectionData, monkeypatch: pytest.MonkeyPatch) -> None:
    """One attempt to connect, which fails at once, and a start from scratch that says so."""
    web.stop()
    attempts: list[str] = []
    reachable = pretrained_weights.reachable
    monkeypatch.setattr(pretrained_weights, "reachable", lambda url: attempts.append(url) or reachable(url))
    settings, line, _ = fitted(data, budget("10s"))
    assert attempts == [web.url]
    assert (settings.train.weights, settings.model.backbone.weights) == ("none", "none")
    assert line.startswith(f"from scratch: no network ({web.url} cannot be reached) and nothing cached; ")
    assert "2 classes from 16 images will hardly be learnt: give --weights FILE" in line
    with pytest.raises(WorkError, match="no ImageNet weights to start from: no network"):
        fitted(data, budget("10s", weights="imagenet"))


@pytest.mark.parametrize("weights", ["auto", "none"])
def test_no_attempt(web: HubServer, data: DetectionData, monkeypatch: pytest.MonkeyPatch, weights: str) -> None:
    publish(web)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", weights == "auto")
    monkeypatch.setattr(pretrained_weights, "reachable", lambda url: pytest.fail("it tried to connect"))
    settings, line, _ = fitted(data, budget("10s", weights=weights))
    assert settings.model.backbone.weights == "none"
    assert web.requests == []
    assert line.startswith("from scratch: ")
    assert ("HF_HUB_OFFLINE is set and nothing cached" in line) == (weights == "auto")


def test_the_cache_without_a_network(caches: Path, data: DetectionData, monkeypatch: pytest.MonkeyPatch) -> None:
    in_hub_cache(caches)
    settings, line, _ = fitted(data, budget("10s"))
    assert (settings.model.backbone.name, settings.model.backbone.weights) == (LIGHT, "imagenet")
    assert "from the cache" in line


def test_the_cache_of_torchvision(caches: Path, data: DetectionData) -> None:
    """torchvision's ResNets have the names of timm's."""
    folder = caches / "torch" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(weights("resnet18"), folder / "resnet18-f37072fd.pth")
    settings, line, _ = fitted(data, budget("10s"))
    assert (settings.model.backbone.name, settings.model.backbone.weights) == ("resnet18", "imagenet")
    assert "from the cache" in line


def test_a_download_that_breaks(web: HubServer, data: DetectionData) -> None:
    """The server is there but has no such file: the run starts from scratch, and the line has the reason."""
    settings, line, _ = fitted(data, budget("10s"))
    assert (settings.model.backbone.weights, settings.model.backbone.frozen_stages) == ("none", 0)
    assert settings.train.backbone_lr == 1
    assert line.startswith("from scratch: ")
    assert "the Hugging Face hub has no model timm/" in line


def test_a_download_that_takes_too_much_of_the_budget(web: HubServer) -> None:
    publish(web)
    sources = PretrainedWeights(budget=1e-6)
    with pytest.raises(WorkError, match="of the budget"):
        sources.obtain(LIGHT)
    assert not sources.available(LIGHT)


def test_a_backbone_file_needs_no_other_option(data: DetectionData, tmp_path: Path) -> None:
    save_file(weights(LIGHT), tmp_path / "some.safetensors")
    settings, line, _ = fitted(data, budget("10s", weights=str(tmp_path / "some.safetensors")))
    backbone = settings.model.backbone
    assert settings.train.weights == "none"
    assert (backbone.name, backbone.weights) == (LIGHT, str(tmp_path / "some.safetensors"))
    assert (backbone.frozen_norm, backbone.frozen_stages) == (True, 3)
    assert settings.model.pyramid.channels in (64, 128)
    assert settings.train.backbone_lr < 1
    assert LIGHT in line
    assert str(tmp_path / "some.safetensors") in line


def test_what_the_user_gave_beside_a_backbone_file_stays(data: DetectionData, tmp_path: Path) -> None:
    save_file(weights(LIGHT), tmp_path / "some.safetensors")
    given = budget("10s", weights=str(tmp_path / "some.safetensors"), lr=0.25, backbone_lr=0.5)
    given["model"] = {**given["model"], "backbone": {"frozen_stages": 0}, "head": {"width": 24}}
    settings, _, _ = fitted(data, given)
    assert (settings.train.lr, settings.train.backbone_lr) == (0.25, 0.5)
    assert (settings.model.backbone.frozen_stages, settings.model.head.width) == (0, 24)
    assert settings.model.pyramid.channels == recipes.load(recipes.FITTED, {}).model.pyramid.channels
    assert settings.model.backbone.weights == str(tmp_path / "some.safetensors")


def test_another_backbone_than_the_files(data: DetectionData, tmp_path: Path) -> None:
    save_file(weights(LIGHT), tmp_path / "some.safetensors")
    given = {"train": {"weights": str(tmp_path / "some.safetensors")}, "model": {"backbone": {"name": "resnet18"}}}
    with pytest.raises(RequestError, match=r"some\.safetensors is no known RetinaNet"):
        fitted(data, given)


def test_a_short_budget_gets_small_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that takes seconds leaves none for training: smaller images, and no level P2."""
    boxes = [(60 * i, 30, 60 * i + side, 30 + side, i % 2) for i, side in enumerate([9] * 4 + [50] * 6)]
    large = black_images(tmp_path, [((480, 640), boxes)] * 4)

    def measure(settings: Settings, *_: Any) -> step_cost.Cost:
        pixels = settings.model.preprocessing.size * settings.model.preprocessing.longer
        return step_cost.Cost(pixels * 1e-6 * (4 if settings.model.anchors.first_level == 2 else 1), 1e6)

    monkeypatch.setattr(network_choice, "measure", measure)
    monkeypatch.setattr(fitted_defaults, "measure", measure)
    short, _, _ = fitted(large, {"train": {"budget": "1m", "weights": "none"}})
    long, _, _ = fitted(large, {"train": {"budget": "10h", "weights": "none"}})
    assert long.model.preprocessing.size == 480
    assert short.model.preprocessing.size == fitted_defaults.SMALLEST
    assert short.model.anchors.first_level == 3
    own, _, _ = fitted(large, {"train": {"budget": "1m"}, "model": {"preprocessing": {"size": 448, "longer": 600}}})
    assert own.model.preprocessing.size == 448


def test_keywords_with_a_recipe(web: HubServer, data: DetectionData) -> None:
    publish(web)
    sources = PretrainedWeights()
    plain = recipes.load("scratch-small", {"model": {"backbone": {"name": LIGHT}}, "train": {"weights": "auto"}})
    settings, start = start_choice.resolved(plain, data, sources)
    assert (settings.train.weights, settings.model.backbone.weights) == ("none", "imagenet")
    assert "downloaded" in start.text
    for keyword, weights in (("coco", COCO), ("none", "none")):
        settings, start = start_choice.resolved(recipes.load(None, {"train": {"weights": keyword}}), data, sources)
        assert settings.train.weights == weights
        assert start.text
    assert Settings().train.weights == "none", "the paper's behaviour"


@pytest.mark.slow
def test_the_line_is_shown_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a run from a backbone file: on the terminal, in run.json and in the report."""
    save_file(weights(LIGHT), tmp_path / "some.safetensors")
    root, run = rectangles(tmp_path / "data"), tmp_path / "run"
    options = ["--weights", str(tmp_path / "some.safetensors"), "--steps", "2", "--output", str(run)]
    assert main(["train", str(root), *options]) == 0
    (line,) = [text for text in capsys.readouterr().err.splitlines() if text.startswith("start: ")]
    kept = json.loads((run / "run.json").read_text())["start"]
    assert line == f"start: {kept}"
    assert str(tmp_path / "some.safetensors") in kept
    assert kept in (run / "report.html").read_text()
    assert main(["train", "--resume", str(run), "--steps", "3"]) == 0, "the file is not needed again"
    recipe = tmp_path / "own.yaml"
    recipe.write_text(json.dumps({**TINY, "train": {**TINY["train"], "steps": 1}}))
    assert main(["train", str(root), "--config", str(recipe), "--output", str(tmp_path / "second")]) == 0
    assert json.loads((tmp_path / "second" / "run.json").read_text())["start"].startswith("from scratch: ")
