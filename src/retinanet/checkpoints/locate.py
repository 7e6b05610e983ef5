"""What a model is called, and the file that it means.

    runs/mine                       a run folder: best.safetensors, else last.safetensors
    model.safetensors               a file; or a folder with such a file, as the Hugging Face hub's client makes them
    retinanet_resnet50_fpn_v2       torchvision's weights, by the name of the function that makes the network
    https://zoo.org/model.pth       a file to download, once
    user/name, user/name@revision   a model on the Hugging Face hub; hf://user/name@revision/file is the explicit form

A name that exists as a file or folder is that file or folder. To recognise a name takes no heavy import and no network,
so that the command line can do it first.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple
from urllib.parse import unquote, urlsplit

from retinanet.common.errors import RequestError
from retinanet.common.fields import shown

RUN_FILES = ("best.safetensors", "last.safetensors")
COMMON_FILES = (*RUN_FILES, "model.safetensors", "pytorch_model.bin")
"""Names of checkpoints, the first to be preferred."""
ENDINGS = (".safetensors", ".pth", ".pt", ".pkl", ".bin", ".ckpt")
EXPORTED = ("model.xml", ".onnx", ".pt2")
"""Endings of exported models' names; OpenVINO's is in a folder with its other files."""
NOT_MODELS = ("resume.pt", "model.bin")
"""The state that training resumes from, and the numbers of an OpenVINO model: neither is a model."""
TORCHVISION = {
    "retinanet_resnet50_fpn": "RetinaNet_ResNet50_FPN_Weights",
    "retinanet_resnet50_fpn_v2": "RetinaNet_ResNet50_FPN_V2_Weights",
}
"""Names of torchvision's models, and of the enumerations of their weights."""
RUNS_FOLDER = "runs"
"""The folder of training runs: always a path, also before the first run."""
HUB_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
WAYS = (
    "give a run folder, a checkpoint file, an https URL, the name of a model on the Hugging Face hub (user/name) "
    f"or one of torchvision's ({', '.join(TORCHVISION)})"
)
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+):/")
_DRIVE = re.compile(r"^[A-Za-z]:")  # of a path of Windows
_HUB = re.compile(r"^(?P<repo>\w[\w.-]*/\w[\w.-]*)(?:@(?P<revision>[\w.-][\w./-]*))?$", re.ASCII)


class Hub(NamedTuple):
    """A model on the Hugging Face hub; ``file`` and ``revision`` are None where the name does not have them."""

    repo: str
    revision: str | None = None
    file: str | None = None


class Source(NamedTuple):
    kind: Literal["path", "torchvision", "url", "hub"]
    name: str
    hub: Hub | None = None


def recognise(source: str | Path) -> Source:
    """What ``source`` names, by the files here and by its form; a ``Path`` is only ever a path.

    Raises:
        RequestError: it names nothing; the message says what is possible.
    """
    if not isinstance(source, str | Path) or not str(source).strip():
        raise RequestError(f"a model's name cannot be {shown(source)}: {WAYS}")
    text = str(source)
    path = Path(source)
    if os.path.exists(text):  # not Path.exists, which fails for names that are too long
        return Source("path", text)
    if isinstance(source, Path):
        raise _no_path(path)
    if text in TORCHVISION:
        return Source("torchvision", text)
    if scheme := _SCHEME.match(text):
        return _url(text, scheme[1].lower())
    if _looks_like_a_path(text):
        raise _no_path(path)
    if match := _HUB.match(text):
        return Source("hub", text, Hub(match["repo"], match["revision"]))
    raise RequestError(f"there is no model {text}{_near(path)}: {WAYS}")


def in_folder(folder: Path) -> Path:
    """The checkpoint in a folder.

    Raises:
        RequestError: there is none, or there are several.
    """
    name = choose([path.name for path in folder.iterdir() if path.is_file()], str(folder))
    if name is None:
        raise RequestError(f"{folder} is a folder without {' or '.join(RUN_FILES)}: give a run folder or a file")
    return folder / name


def choose(names: Collection[str], where: str) -> str | None:
    """The file that is the model: one with a usual name, else the only one with a usual ending, else None.

    Checkpoints come before exported models.

    Raises:
        RequestError: there are several.
    """
    for name in COMMON_FILES:
        if name in names:
            return name
    for endings in (ENDINGS, EXPORTED):
        possible = sorted(n for n in names if n.lower().endswith(endings) and PurePosixPath(n).name not in NOT_MODELS)
        if len(possible) > 1:
            shown = ", ".join(possible[:5]) + (", ..." if len(possible) > 5 else "")
            raise RequestError(f"{where} has {len(possible)} files that could be the model ({shown}): give one of them")
        if possible:
            return possible[0]
    return None


def secure(url: str) -> bool:
    """Whether nobody can change a download on the way: https, or this machine itself."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in ("localhost", "127.0.0.1", "::1"))


def _url(text: str, scheme: str) -> Source:
    if "://" not in text:
        raise RequestError(f"{text} has one slash too few after {scheme}: (a text, not a Path, keeps both)")
    if scheme == "hf":
        repo, _, file = text.removeprefix("hf://").partition("@")
        if file:  # user/name@revision/file
            revision, _, file = file.partition("/")
        else:  # user/name/file
            pieces = repo.split("/", 2)
            revision, repo, file = "", "/".join(pieces[:2]), "".join(pieces[2:])
        if not _HUB.match(repo) or ".." in file.split("/"):
            raise RequestError(f"{text} does not name a model of the hub: write hf://user/name@revision/file")
        return Source("hub", text, Hub(repo, unquote(revision) or None, file or None))
    try:
        parts, safe = urlsplit(text), secure(text)
    except ValueError as error:
        raise RequestError(f"{text} is not a URL: {error}") from error
    if not safe:
        why = "can be changed on the way" if scheme == "http" else f"cannot be fetched by {scheme}"
        raise RequestError(f"{text} {why}: use https, or download it and give the file")
    if parts.hostname in HUB_HOSTS:
        # A browser's URL is that of a model's page, of one of its revisions or of one of its files.
        user, name, at, revision, file = (*parts.path.strip("/").split("/", 4), "", "", "", "", "")[:5]
        repo = f"{user}/{name}"
        if _HUB.match(repo) and at in ("", "tree", "blob", "resolve"):
            return Source("hub", text, Hub(repo, unquote(revision) or None, unquote(file) or None))
    return Source("url", text)


def _looks_like_a_path(text: str) -> bool:
    parts = text.split("/")
    return (
        text.startswith(("/", ".", "~"))
        or _DRIVE.match(text) is not None
        or "\\" in text
        or text.endswith("/")
        or text.lower().endswith((*ENDINGS, *EXPORTED))
        or (len(parts) > 2 and "@" not in text)
        or (len(parts) > 1 and (parts[0] == RUNS_FOLDER or Path(parts[0]).is_dir()))
    )


def _no_path(path: Path) -> RequestError:
    text = str(path)
    hint = ""
    if not path.is_absolute() and _HUB.match(text) and not text.lower().endswith(ENDINGS):
        here = f"{path.parts[0]} is a folder here" if Path(path.parts[0]).is_dir() else f"{path.parts[0]} is for paths"
        hint = f" ({here}; a model of the Hugging Face hub would be hf://{text})"
    return RequestError(f"there is no model {text}{_near(path)}: give a run folder or a checkpoint file{hint}")


def _near(path: Path) -> str:
    """A hint at an existing model with nearly this name."""
    known = list(TORCHVISION) if len(path.parts) == 1 else []
    folders = [path.parent, Path(RUNS_FOLDER)] if len(path.parts) == 1 else [path.parent]
    for folder in folders:
        try:
            known += [str(entry) for entry in folder.iterdir()]
        except OSError:
            continue
    by_name = {Path(name).name.lower(): name for name in reversed(known)}
    near = difflib.get_close_matches(path.name.lower(), by_name, n=1, cutoff=0.75)
    return f", did you mean {by_name[near[0]]}?" if near else ""
