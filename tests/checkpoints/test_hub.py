"""The Hugging Face hub: its real client against a server on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import ModelCard

import retinanet
from helpers.hub_server import TOKEN, HubServer, Repository
from retinanet.checkpoints import hub, native
from retinanet.checkpoints.hub import fetch, push, run_facts, write_files
from retinanet.checkpoints.model_card import METRICS, card_text, cell
from retinanet.cli import main
from retinanet.common.errors import RequestError, WorkError
from retinanet.common.fields import from_plain
from retinanet.config.convert import to_plain
from retinanet.config.model_settings import (
    AnchorSettings,
    BackboneSettings,
    HeadSettings,
    ModelSettings,
    PreprocessingSettings,
    PyramidSettings,
)
from retinanet.inference.detector import Detector
from retinanet.model import RetinaNet

NAMES = ("dog", "cat | *wild*", "bird")
NUMBERS = dict(zip(METRICS, (0.4012, 0.6, 0.43, 0.1, 0.3, -1.0, 0.35, 0.5, 0.55, 0.2, 0.5, -1.0)))
ABOUT = {"step": 120, "metrics": NUMBERS, "split": "val", "threshold": 0.375}
MEASURED = {name: value for name, value in NUMBERS.items() if value >= 0}


@pytest.fixture(scope="module")
def detector() -> Detector:
    torch.manual_seed(0)
    settings = ModelSettings(
        backbone=BackboneSettings(name="resnet18", options={"channels": [8, 8, 16, 16]}, weights="/home/me/start.pth"),
        pyramid=PyramidSettings(channels=16),
        head=HeadSettings(depth=1, width=16, norm="group"),
        anchors=AnchorSettings(sizes=(8, 16, 32, 64, 128)),
        preprocessing=PreprocessingSettings(size=64, longer=96),
    )
    model = RetinaNet(settings, len(NAMES), load_weights=False)
    torch.nn.init.normal_(model.class_subnet.output.weight, std=0.5)
    return Detector(model, NAMES, about=ABOUT)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub, where this process's client looks for one; its cache and its token are the test's own."""
    from huggingface_hub import constants

    server = HubServer()
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    yield server
    server.stop()


def assert_same(a: Detector, b: Detector) -> None:
    image = torch.randint(0, 256, (3, 50, 90), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    one, two = a.predict(image, threshold=0.05), b.predict(image, threshold=0.05)
    assert len(one) == len(two) > 5
    assert one.names == two.names
    torch.testing.assert_close(one.scores, two.scores, rtol=0, atol=1e-4)
    torch.testing.assert_close(one.boxes, two.boxes, rtol=0, atol=1e-3)


def test_pushed_and_loaded(server: HubServer, detector: Detector) -> None:
    page = push(detector.checkpoint(), "user/name", token=TOKEN, license="apache-2.0", data="user/pets")
    assert page == f"{server.url}/user/name"
    repository = server.repositories["user/name"]
    assert not repository.private
    assert len(repository.commits) == 1
    assert sorted(repository.commits[0]) == ["README.md", "config.json", "model.safetensors"]
    assert repository.messages == [f"A detector of 3 classes by retinanet {retinanet.__version__}"]
    # The large file went as the hub takes large files, not inside the commit.
    assert repository.commits[0]["model.safetensors"] in server.large.values()

    path = fetch("user/name")
    assert sorted(file.name for file in path.parent.iterdir()) == ["config.json", "model.safetensors"]
    loaded = retinanet.load(path, device="cpu", precision="fp32")
    assert loaded.class_names == NAMES
    assert loaded.threshold == 0.375
    assert_same(detector, loaded)
    stored = native.load(path)
    assert stored.extra == ABOUT
    # Where training began on this machine is nobody's business.
    assert stored.settings.backbone.weights == "start.pth"
    assert stored.settings == hub.without_paths(detector.settings)
    assert b"/home/me" not in b"".join(repository.commits[0].values())
    config = json.loads((path.parent / "config.json").read_text(encoding="utf-8"))
    assert from_plain(ModelSettings, config["settings"]) == stored.settings
    assert (config["class_names"], config["threshold"]) == (list(NAMES), 0.375)


def test_a_second_push_is_a_second_commit_of_the_same_repository(server: HubServer, detector: Detector) -> None:
    push(detector.checkpoint(), "user/name", token=TOKEN, private=True)
    push(detector.checkpoint(), "user/name", token=TOKEN, license="mit", message="with a license")
    repository = server.repositories["user/name"]
    assert repository.private
    assert repository.messages[1] == "with a license"
    assert b"license: mit" in repository.commits[1]["README.md"]
    first = fetch("user/name", repository.ids[0], token=TOKEN)
    assert first.parent.name == repository.ids[0]
    assert fetch("user/name", token=TOKEN).parent.name == repository.ids[1]


def test_from_the_cache_without_a_server(
    server: HubServer, detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(detector.checkpoint(), "user/name", token=TOKEN)
    commit = server.repositories["user/name"].ids[0]
    path = fetch("user/name")
    server.broken = 503
    assert fetch("user/name") == path
    server.stop()
    for revision in (None, "main", commit):
        assert fetch("user/name", revision) == path
    assert fetch("user/name", file="model.safetensors") == path
    with pytest.raises(WorkError, match=rf"^other/name is not in the cache .*{server.url}.*cannot be reached: connect"):
        fetch("other/name")
    with pytest.raises(WorkError, match=r"^user/name is not in the cache"):
        fetch("user/name", "v2")
    with pytest.raises(WorkError, match=r"^user/name cannot be pushed to .*cannot be reached: connect to a network"):
        push(detector.checkpoint(), "user/name", token=TOKEN)
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch("user/name") == path
    with pytest.raises(WorkError, match=r"^other/name is not in the cache .*, and HF_HUB_OFFLINE is set$"):
        fetch("other/name")


def test_a_name_that_is_not_known_anywhere(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.invalid")
    with pytest.raises(WorkError, match=r"\(https://hub\.invalid\), and cannot be reached"):
        fetch("user/name")


def test_a_server_that_is_out_of_order(server: HubServer) -> None:
    server.broken = 500
    with pytest.raises(
        WorkError,
        match=r"^user/name cannot be downloaded: the hub returns status 500 \(out of order\)",
    ):
        fetch("user/name")


def test_what_the_hub_does_not_have(server: HubServer) -> None:
    server.repositories["user/name"] = there = Repository()
    there.commit({"config.json": b"{}", "data.csv": b"1"})
    for repo, given, message in [
        (
            "user/nothing",
            {},
            "the Hugging Face hub has no model user/nothing, or it is private; check the name, or run",
        ),
        ("user/name", {}, "user/name on the Hugging Face hub has no checkpoint, only config.json, data.csv"),
        ("user/name", {"revision": "v2"}, "it has no revision v2; see "),
        ("user/name", {"file": "model.pth"}, "it has no file model.pth; see "),
        ("user", {}, "'user' is no name of a model on the Hugging Face hub: it has the form user/name"),
        ("user/na--me", {}, "'user/na--me' is no name of a model"),
    ]:
        with pytest.raises(RequestError) as caught:
            fetch(repo, **given)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


def test_what_needs_a_token(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.repositories["user/gated"] = Repository(gated=True)
    server.repositories["user/private"] = Repository(private=True)
    for repository in server.repositories.values():
        repository.commit({"pytorch_model.bin": b"weights"})
    with pytest.raises(RequestError, match=r"accept their terms; do so at .*/user/gated, then run `hf auth login`"):
        fetch("user/gated")
    with pytest.raises(RequestError, match=r"has no model user/private, or it is private; .* or run `hf auth login`"):
        fetch("user/private")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    for name in ("user/gated", "user/private"):
        assert fetch(name).read_bytes() == b"weights"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["pytorch_model.bin", "model.safetensors"], "model.safetensors"),
        (["pytorch_model.bin", "other.pth"], "pytorch_model.bin"),
        (["last.safetensors", "best.safetensors", "resume.pt"], "best.safetensors"),
        (["RetinaNet.pkl", "notes.md"], "RetinaNet.pkl"),
        (["weights/model_final.pth", "notes.md"], "weights/model_final.pth"),
        (["top.pth", "weights/model_final.pth"], "top.pth"),
    ],
)
def test_which_file_is_the_model(server: HubServer, files: list[str], expected: str) -> None:
    server.repositories["user/name"] = there = Repository()
    there.commit({name: name.encode() for name in files})
    path = fetch("user/name")
    assert path.read_bytes() == expected.encode()
    assert [r for r in server.requests if r.startswith("GET") and "/resolve/" in r] == [
        f"GET /user/name/resolve/main/{expected}"
    ]


def test_which_of_two_files(server: HubServer) -> None:
    server.repositories["user/name"] = there = Repository()
    there.commit({"b.pth": b"b", "a.pth": b"a"})
    with pytest.raises(RequestError, match=r"^user/name has 2 files that could be the model \(a\.pth, b\.pth\): give"):
        fetch("user/name")
    assert fetch("user/name", file="b.pth").read_bytes() == b"b"


def test_pushing_without_the_right(server: HubServer, detector: Detector) -> None:
    with pytest.raises(
        RequestError, match=r"^there is no token for the Hugging Face hub: run `hf auth login`, or set "
    ):
        push(detector.checkpoint(), "user/name")
    with pytest.raises(
        RequestError,
        match=r"^user/name cannot be pushed: your token is not accepted for it \(Invalid username or password\); run",
    ):
        push(detector.checkpoint(), "user/name", token="hf_wrong")
    with pytest.raises(
        RequestError, match=r"^other/name cannot be pushed: your token is not accepted for it \(.*rights to create"
    ):
        push(detector.checkpoint(), "other/name", token=TOKEN)
    assert server.repositories == {}


# ------------------------------------------------------------------------------------------------------ the model card


def knowing(detector: Detector, **about: Any) -> Detector:
    """The same network, of which this is known."""
    return Detector(detector.model, NAMES, about=about)


def card(detector: Detector, **given: Any) -> ModelCard:
    return ModelCard(card_text(detector.checkpoint(), "user/name", **given))


def test_numbers_of_the_card(detector: Detector) -> None:
    made = card(detector, license="cc-by-4.0", data="user/pets")
    matter = made.data
    assert (matter.library_name, matter.pipeline_tag, matter.license) == ("retinanet", "object-detection", "cc-by-4.0")
    assert matter.datasets == ["user/pets"]
    assert {"retinanet", "resnet18"} <= set(matter.tags)
    assert matter.model_name == "name"
    assert matter.eval_results is not None
    assert {r.metric_type: r.metric_value for r in matter.eval_results} == MEASURED
    assert {(r.task_type, r.dataset_type, r.dataset_split) for r in matter.eval_results} == {
        ("object-detection", "user/pets", "val")
    }
    for name, value in MEASURED.items():
        assert f"| {name} | {METRICS[name]} | {value:.3f} |" in made.text
    assert "| APl |" not in made.text  # there were no large objects to measure on
    assert "on user/pets, split val, after 120 training steps." in " ".join(made.text.split())
    assert 'retinanet.load("user/name")' in made.text
    assert "Scores above 0.375" in made.text
    assert "Data set: user/pets." in made.text
    assert "dog, cat \\| \\*wild\\*, bird." in made.text
    assert "shorter side 64, longer at most 96 pixels" in made.text


def test_what_is_not_known_is_left_out(detector: Detector) -> None:
    made = card(knowing(detector))
    front = yaml.safe_load(card_text(knowing(detector).checkpoint(), "user/name").split("---")[1])
    assert sorted(front) == ["library_name", "pipeline_tag", "tags"]
    assert "## Results" not in made.text
    assert "No evaluation" in made.text
    assert "Scores above" not in made.text
    assert "None" not in made.text
    assert "split" not in made.text


def test_origin_and_its_license(detector: Detector) -> None:
    converted = knowing(detector, origin="Detectron2, ResNet-50", license="apache-2.0")
    made = card(converted)
    assert "another project: Detectron2, ResNet-50 (license apache-2.0)." in made.text
    assert made.data.license == "apache-2.0"
    assert card(converted, license="mit").data.license == "mit"


def test_numbers_given_by_hand(detector: Detector) -> None:
    made = card(detector, metrics={"AP": 0.5})
    assert made.data.eval_results is not None
    assert [(r.metric_type, r.metric_value) for r in made.data.eval_results] == [("AP", 0.5)]
    assert "split val" not in made.text  # they are of images that are not named
    for wrong in ({"mAP": 0.5}, {"AP": 50.0}, {"AP": "good"}):
        with pytest.raises(RequestError, match=r"^a metric (mAP|AP) of .* is not one of AP, AP50, .*, in 0\.\.1$"):
            card_text(detector.checkpoint(), "user/name", metrics=wrong)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match=r"^the license 'Apache 2' is not an identifier such as"):
        card_text(detector.checkpoint(), "user/name", license="Apache 2")


def test_facts_of_a_run(detector: Detector, tmp_path: Path) -> None:
    per_class = [
        {"name": "dog", "AP": 0.5, "AP50": 0.75, "boxes": 12},
        {"name": "x", "AP": None, "AP50": None, "boxes": 0},
    ]
    (tmp_path / "run.json").write_text(json.dumps({"data": "/home/me/secret/pets"}))
    evaluation = {"step": 120, "images": 37, "split": "val", **NUMBERS, "per_class": per_class}
    (tmp_path / "evaluation.json").write_text(json.dumps(evaluation))
    detector.save(tmp_path / "best.safetensors")
    for model in (tmp_path, tmp_path / "best.safetensors"):
        run = run_facts(model)
        text = card_text(detector.checkpoint(), "user/name", run=run)
        assert "on pets, split val, 37 images, after 120" in " ".join(text.split())
        assert "| dog | 0.500 | 0.750 | 12 |\n| x | – | – | 0 |" in text
        assert "/home/me" not in text
        front = yaml.safe_load(text.split("---")[1])
        assert "datasets" not in front  # a folder's name is no id on the hub
        assert front["model-index"][0]["results"][0]["dataset"] == {"name": "pets", "type": "pets", "split": "val"}
    # The evaluation is of a later step than the best checkpoint: its numbers by class are not this one's.
    text = card_text(knowing(detector, **{**ABOUT, "step": 60}).checkpoint(), "user/name", run=run)
    assert "| dog |" not in text
    assert "37 images" not in text
    assert run_facts(tmp_path / "nothing" / "model.safetensors") is None


def test_text_is_no_markup() -> None:
    assert cell("a|b\n# <b>*x*") == r"a\|b \# \<b\>\*x\*"


# ------------------------------------------------------------------------------------------------- the command line


def test_dry_run(detector: Detector, tmp_path: Path, server: HubServer, capsys: pytest.CaptureFixture[str]) -> None:
    detector.save(tmp_path / "model.safetensors")
    model, folder = str(tmp_path / "model.safetensors"), tmp_path / "out"
    wish = ["push", model, "user/name", "--license", "mit", "--data", "Pets", "--dry-run", str(folder), "--json", "-"]
    assert main(wish) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["files"] == [str(folder / name) for name in ("model.safetensors", "config.json", "README.md")]
    assert server.requests == []
    made = ModelCard.load(folder / "README.md")
    assert made.data.license == "mit"
    assert_same(detector, retinanet.load(folder / "model.safetensors", device="cpu", precision="fp32"))
    assert main(wish) == 2
    assert "is not empty: name a new folder with --dry-run" in capsys.readouterr().err
    assert main(["push", model, "user/name"]) == 2
    assert capsys.readouterr().err.startswith("error: there is no token for the Hugging Face hub: run `hf auth login`")
    assert main(["push", model, "name"]) == 2
    assert "it has the form user/name" in capsys.readouterr().err


@pytest.mark.slow
def test_in_a_process_of_its_own(detector: Detector, tmp_path: Path) -> None:
    """As a user has it: the client is told by its environment alone."""
    server = HubServer()
    try:
        detector.save(tmp_path / "model.safetensors")
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))},
            "HF_ENDPOINT": server.url,
            "HF_HOME": str(tmp_path / "home"),
            "HF_TOKEN": TOKEN,
            "HF_HUB_DISABLE_XET": "1",
            "NO_PROXY": "127.0.0.1",
        }
        arguments = ["push", str(tmp_path / "model.safetensors"), "user/name", "--private"]
        done = subprocess.run(
            [sys.executable, "-m", "retinanet", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, f"pushed to {server.url}/user/name\n", "")
        assert server.repositories["user/name"].private
        assert len(server.repositories["user/name"].commits) == 1
    finally:
        server.stop()


def test_settings_without_paths(detector: Detector) -> None:
    for given, expected in (
        ("none", "none"),
        ("imagenet", "imagenet"),
        ("a/b.pth", "b.pth"),
        ("C:\\me\\b.pth", "b.pth"),
    ):
        settings = replace(detector.settings, backbone=replace(detector.settings.backbone, weights=given))
        assert to_plain(hub.without_paths(settings))["backbone"]["weights"] == expected


def test_files_that_cannot_be_written(detector: Detector, tmp_path: Path) -> None:
    (tmp_path / "config.json").mkdir()
    with pytest.raises(WorkError, match=r"^cannot write into "):
        write_files(detector.checkpoint(), tmp_path, "user/name")
