"""What a model is called, and the file that it means. The web is a server on this machine."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from helpers.hub_server import HubServer
from retinanet.checkpoints import download as downloads
from retinanet.checkpoints.download import cache_path, cached_file, promised_hash, reachable
from retinanet.checkpoints.fetch import find
from retinanet.checkpoints.locate import Hub, recognise
from retinanet.common.errors import RequestError, WorkError

CONTENT = bytes(range(256)) * 4000  # several chunks
HASH = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A server, and a cache of torch.hub of the test's own."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "torch"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = HubServer()
    yield server
    server.stop()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the current one."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


# ------------------------------------------------------------------------------------------------- files and folders


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["best.safetensors", "last.safetensors", "resume.pt"], "best.safetensors"),
        (["last.safetensors", "resume.pt", "run.json"], "last.safetensors"),
        (["model.safetensors", "config.json", "pytorch_model.bin"], "model.safetensors"),
        (["pytorch_model.bin", "config.json"], "pytorch_model.bin"),
        (["RetinaNet.pkl", "README.md"], "RetinaNet.pkl"),
    ],
)
def test_folders(tmp_path: Path, names: list[str], expected: str) -> None:
    for name in names:
        touch(tmp_path / name)
    assert find(tmp_path) == find(str(tmp_path)) == tmp_path / expected
    assert find(tmp_path / expected) == tmp_path / expected


def test_folders_without_a_model(tmp_path: Path) -> None:
    """A run that was stopped before its first evaluation has only what training goes on from."""
    touch(tmp_path / "resume.pt")
    with pytest.raises(RequestError, match=r"is a folder without best\.safetensors or last\.safetensors: give a run "):
        find(tmp_path)
    touch(tmp_path / "a.pth")
    touch(tmp_path / "b.pth")
    with pytest.raises(
        RequestError, match=r"has 2 files that could be the model \(a\.pth, b\.pth\): give one of them$"
    ):
        find(tmp_path)


def test_what_is_here_comes_first(here: Path) -> None:
    """Whatever it is called."""
    for name in ("user/name", "retinanet_resnet50_fpn", "https:/zoo.org/model.pth"):
        touch(here / name)
        assert recognise(name).kind == recognise(Path(name)).kind == "path"
        assert find(name) == Path(name)


# ------------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("user/name", Hub("user/name")),
        ("user/na.me-1_x@v1.0", Hub("user/na.me-1_x", "v1.0")),
        ("user/name@refs/pr/1", Hub("user/name", "refs/pr/1")),
        ("hf://user/name", Hub("user/name")),
        ("hf://user/name@v1", Hub("user/name", "v1")),
        ("hf://user/name/some/model.pth", Hub("user/name", None, "some/model.pth")),
        ("hf://user/name@v1/some/model.pth", Hub("user/name", "v1", "some/model.pth")),
        ("hf://user/name.pth", Hub("user/name.pth")),
        ("https://huggingface.co/user/name", Hub("user/name")),
        ("https://huggingface.co/user/name/tree/v1", Hub("user/name", "v1")),
        ("https://huggingface.co/user/name/blob/main/a/model.pth", Hub("user/name", "main", "a/model.pth")),
        ("https://huggingface.co/user/name/resolve/main/model.pth", Hub("user/name", "main", "model.pth")),
    ],
)
def test_models_of_the_hub(here: Path, source: str, expected: Hub) -> None:
    assert recognise(source).kind == "hub"
    assert recognise(source).hub == expected


def test_other_kinds(here: Path) -> None:
    assert recognise("retinanet_resnet50_fpn_v2").kind == "torchvision"
    long = "https://zoo.org/model.pth?signature=" + 500 * "x"
    for url in ("https://zoo.org/a/model.pth", long, "http://localhost:8000/x.pth", "https://huggingface.co/user"):
        assert recognise(url) == ("url", url, None)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "runs/mine",
            "there is no model runs/mine: give a run folder or a checkpoint file (runs is for paths; a model of",
        ),
        (
            "there/mine",
            "there is no model there/mine, did you mean there/mime?: give a run folder or a checkpoint file ",
        ),
        ("there/other", "file (there is a folder here; a model of the Hugging Face hub would be hf://there/other)"),
        ("/no/where", "there is no model /no/where: give a run folder or a checkpoint file"),
        ("./user/name", "there is no model "),
        ("a/b/c", "there is no model a/b/c: give a run folder or a checkpoint file"),
        ("user/model.pth", "there is no model user/model.pth: give a run folder or a checkpoint file"),
        (
            "mime",
            "there is no model mime: give a run folder, a checkpoint file, an https URL, the name of a model on",
        ),
        (
            "retinanet_resnet50_fpn_v3",
            "there is no model retinanet_resnet50_fpn_v3, did you mean retinanet_resnet50_fpn",
        ),
        ("http://zoo.org/model.pth", "can be changed on the way: use https, or download it and give the file"),
        ("ftp://zoo.org/model.pth", "cannot be fetched by ftp: use https, or download it and give the file"),
        ("https:/zoo.org/model.pth", "has one slash too few after https:"),
        ("hf://name", "hf://name does not name a model of the hub: write hf://user/name@revision/file"),
        ("hf://user/name@v1/../../x", "does not name a model of the hub"),
        ("https://[zoo/model.pth", "is not a URL"),
        ("two words", "there is no model two words: give a run folder"),
        ("a\0b", "there is no model "),
    ],
)
def test_what_nothing_can_be_meant_by(here: Path, source: str, message: str) -> None:
    touch(here / "there" / "mime" / "best.safetensors")
    with pytest.raises(RequestError) as caught:
        recognise(source)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_run_that_is_nearly_called_so(here: Path) -> None:
    touch(here / "runs" / "mine" / "best.safetensors")
    for source, meant in (("mine", "runs/mine"), ("runs/mime", "runs/mine"), ("Mine", "runs/mine")):
        with pytest.raises(RequestError, match=rf"^there is no model {source}, did you mean {meant}\?: give "):
            recognise(source)


def test_a_path_is_only_a_path(here: Path) -> None:
    for name in ("user/name", "retinanet_resnet50_fpn"):
        with pytest.raises(RequestError, match=rf"^there is no model {name}.*: give a run folder or a checkpoint file"):
            recognise(Path(name))


def test_a_bare_name_says_that_it_was_looked_for_here_too(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.invalid")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(here / "cache"))
    with pytest.raises(
        WorkError, match=r"^there is no file or folder mine/model here, and mine/model is not in the cac"
    ):
        find("mine/model")
    with pytest.raises(WorkError, match=r"^mine/model is not in the cache"):
        find("hf://mine/model")


def test_looking_at_a_name_is_cheap() -> None:
    code = (
        "import sys\n"
        "from retinanet.checkpoints.locate import recognise\n"
        "recognise('user/name'), recognise('https://zoo.org/model.pth'), recognise('retinanet_resnet50_fpn')\n"
        "print(*({'torch', 'torchvision', 'huggingface_hub', 'numpy', 'timm'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("\n", "")


# --------------------------------------------------------------------------------------------------------- downloads


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("retinanet_resnet50_fpn_coco-eeacb38b.pth", "eeacb38b"),
        ("retinanet_r50_fpn_1x_coco_20200130-c2398f9e.pth", "c2398f9e"),
        ("retinanet-20200130.pth", ""),
        ("model_final_971ab9.pkl", ""),
        ("retinanet_mAP-0.384.pth", ""),
        ("model.pth", ""),
    ],
)
def test_hashes_in_names(name: str, expected: str) -> None:
    assert promised_hash(name) == expected


def test_downloaded_once(web: HubServer, tmp_path: Path) -> None:
    web.plain["/zoo/model_final.pkl"] = (200, {}, CONTENT)
    url = f"{web.url}/zoo/model_final.pkl?download=1"
    path = find(url)
    assert path.read_bytes() == CONTENT
    assert path.name == "model_final.pkl"
    assert path.is_relative_to(tmp_path / "torch" / "checkpoints")
    assert [entry.name for entry in path.parent.iterdir()] == ["model_final.pkl"]
    web.stop()
    assert find(url) == path
    assert web.requests == ["GET /zoo/model_final.pkl"]


def test_files_of_one_name_are_kept_apart(web: HubServer) -> None:
    for place in ("a", "b"):
        web.plain[f"/{place}/model_final.pkl"] = (200, {}, place.encode())
    paths = [find(f"{web.url}/{place}/model_final.pkl") for place in ("a", "b")]
    assert [path.read_bytes() for path in paths] == [b"a", b"b"]


def test_hashes_are_checked(web: HubServer, tmp_path: Path) -> None:
    good, bad = f"model-{HASH[:8]}.pth", "model-0badf00d.pth"
    web.plain[f"/{good}"] = web.plain[f"/{bad}"] = (200, {}, CONTENT)
    # Where torch.hub keeps it: torchvision finds it there too.
    assert find(f"{web.url}/{good}") == tmp_path / "torch" / "checkpoints" / good
    with pytest.raises(WorkError, match=rf"its SHA-256 begins with {HASH[:8]}, not 0badf00d; nothing was kept"):
        find(f"{web.url}/{bad}")
    assert [entry.name for entry in (tmp_path / "torch" / "checkpoints").iterdir()] == [good]


@pytest.mark.parametrize("name", ["retinanet_resnet50_fpn", "retinanet_resnet50_fpn_v2"])
def test_torchvisions_names(web: HubServer, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Found in the cache, without a network, where torchvision put it."""
    from torchvision.models import get_model_weights

    url = get_model_weights(name).COCO_V1.url
    place = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    assert cache_path(url) == place
    monkeypatch.setattr(downloads, "_chunks", lambda url, watch: iter([url.encode()]))
    with pytest.raises(WorkError, match=rf"^{url} is not the file that its name promises"):
        find(name)
    assert not place.exists()
    touch(place)
    assert find(name) == place


@pytest.mark.parametrize(
    ("status", "headers", "kind", "message"),
    [
        (404, {}, RequestError, "404 Not Found; check the URL"),
        (403, {}, RequestError, "403 Forbidden; download it with your account and give the file"),
        (500, {}, WorkError, "500 Internal Server Error; try again later"),
        (
            200,
            {"Content-Type": "text/html; charset=utf-8"},
            RequestError,
            "is a web page, not a checkpoint",
        ),
        (
            302,
            {"Location": "http://zoo.org/x.pth"},
            RequestError,
            "leads to http://zoo.org/x.pth, which can be changed",
        ),
        (
            200,
            {"Content-Length": "5000000", "Connection": "close"},
            WorkError,
            "broke off after 1024000 of 5000000 bytes",
        ),
    ],
)
def test_downloads_that_fail(
    web: HubServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    headers: dict[str, str],
    kind: type[Exception],
    message: str,
) -> None:
    monkeypatch.setattr(downloads, "WAIT", 2.0)
    web.plain["/x.pth"] = (status, headers, CONTENT)
    with pytest.raises(kind) as caught:
        find(f"{web.url}/x.pth?token=secret")
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{web.url}/x.pth ")
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not [path for path in (tmp_path / "torch").rglob("*") if path.is_file()]


def test_no_network(web: HubServer) -> None:
    web.stop()
    for url in (f"{web.url}/x.pth", "https://zoo.invalid/x.pth"):
        with pytest.raises(
            WorkError, match=rf"^{url} cannot be downloaded \(.*\): connect to a network, or give a file$"
        ):
            cached_file(url)
        assert not reachable(url)


def test_reachable(web: HubServer) -> None:
    assert reachable(web.url)
    assert web.requests == []


def test_addresses_that_name_no_file(web: HubServer) -> None:
    for url in (
        "https://zoo.org",
        "https://zoo.org/",
        "https://zoo.org/..",
        "https://zoo.org/a%2F..",
        "https://a/b%5Cc",
    ):
        with pytest.raises(RequestError, match=r"names no file: give the URL of a checkpoint"):
            cache_path(url)
    name = cache_path("https://zoo.org/x/%2e%2e%2fevil.pth")
    assert name.name == "evil.pth"
    assert name.is_relative_to(torch.hub.get_dir())


def test_a_disk_that_cannot_be_written(web: HubServer, tmp_path: Path) -> None:
    touch(tmp_path / "torch")
    web.plain["/x.pth"] = (200, {}, CONTENT)
    with pytest.raises(WorkError, match=r"^cannot write into .*torch"):
        find(f"{web.url}/x.pth")


@pytest.mark.parametrize("name", ["C:/models/a", "C:\\models\\a", "d:a", "C:/a.pth", "\\\\server\\share\\a"])
def test_paths_of_windows_are_paths(here: Path, name: str) -> None:
    """A drive is no scheme of a URL."""
    with pytest.raises(RequestError, match="give a run folder or a checkpoint file"):
        recognise(name)
