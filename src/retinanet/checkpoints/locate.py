"""What a model is called, and the file that it means.

    runs/mine                       a run folder: best.safetensors, else last.safetensors
    model.safetensors               a file; or a folder with such a file, as the Hugging Face hub's client makes them
    retinanet_resnet50_fpn_v2       torchvision's weights, by the name of the function that makes the network
    https://zoo.org/model.pth       a file to download, once
    user/name, user/name@revision   a model on the Hugging Face hub; hf://user/name@revision/file says so outright

What exists as a file or folder here is that file or folder, whatever it is called. Looking at a name imports nothing
heavy and asks no network: the command line does so first.
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

RUN = ("best.safetensors", "last.safetensors")
USUAL = (*RUN, "model.safetensors", "pytorch_model.bin")
"""Names of checkpoints, the first to be preferred."""
ENDINGS = (".safetensors", ".pth", ".pt", ".pkl", ".bin", ".ckpt")
EXPORTED = ("model.xml", ".onnx", ".pt2")
"""How the names of exported models end; OpenVINO's is in a folder with the rest of it."""
BESIDE = ("resume.pt", "model.bin")
"""What training goes on from, in a run folder, and the numbers of an OpenVINO model: neither is a model."""
TORCHVISION = {
    "retinanet_resnet50_fpn": "RetinaNet_ResNet50_FPN_Weights",
    "retinanet_resnet50_fpn_v2": "RetinaNet_ResNet50_FPN_V2_Weights",
}
"""Names of torchvision's models, and of the enumerations of their weights."""
OURS = "runs"
"""Where training puts its folders: always a path, also where no run has been made yet."""
HUB_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
WAYS = (
    "give a run folder, a checkpoint file, an https address, the name of a model on the Hugging Face hub (user/name) "
    f"or one of torchvision's ({', '.join(TORCHVISION)})"
)
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*):/")
_HUB = re.compile(r"^(?P<repo>\w[\w.-]*/\w[\w.-]*)(?:@(?P<revision>[\w.-][\w./-]*))?$", re.ASCII)


class Hub(NamedTuple):
    """A model on the Hugging Face hub; ``file`` and ``revision`` are None where the name does not say them."""

    repo: str
    revision: str | None = None
    file: str | None = None


class Source(NamedTuple):
    kind: Literal["path", "torchvision", "url", "hub"]
    name: str
    hub: Hub | None = None


def recognise(source: str | Path) -> Source:
    """What kind of thing ``source`` names, by what lies here and by its form.

    A ``Path`` is only ever a path.

    Raises:
        RequestError: nothing of that name can be meant; the message says what is possible.
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
        return _address(text, scheme[1].lower())
    if _looks_like_a_path(text):
        raise _no_path(path)
    if found := _HUB.match(text):
        return Source("hub", text, Hub(found["repo"], found["revision"]))
    raise RequestError(f"there is no model {text}{_near(path)}: {WAYS}")


def in_folder(folder: Path) -> Path:
    """The checkpoint in a folder.

    Raises:
        RequestError: there is none, or several that could be meant.
    """
    name = choose([path.name for path in folder.iterdir() if path.is_file()], str(folder))
    if name is None:
        raise RequestError(f"{folder} is a folder without {' or '.join(RUN)}: give a run folder or a file")
    return folder / name


def choose(names: Collection[str], where: str) -> str | None:
    """Which of these files is the model: one with a usual name, else the only one with a usual ending; else None.

    Checkpoints come before exported models.

    Raises:
        RequestError: several could be meant.
    """
    for name in USUAL:
        if name in names:
            return name
    for endings in (ENDINGS, EXPORTED):
        possible = sorted(n for n in names if n.lower().endswith(endings) and PurePosixPath(n).name not in BESIDE)
        if len(possible) > 1:
            shown = ", ".join(possible[:5]) + (", ..." if len(possible) > 5 else "")
            raise RequestError(f"{where} has {len(possible)} files that could be the model ({shown}): give one of them")
        if possible:
            return possible[0]
    return None


def secure(url: str) -> bool:
    """Whether nobody on the way can change what is downloaded: https, or this machine itself."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in ("localhost", "127.0.0.1", "::1"))


def _address(text: str, scheme: str) -> Source:
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
        raise RequestError(f"{text} is not an address: {error}") from error
    if not safe:
        why = (
            "can be changed on its way: use https" if scheme == "http" else f"cannot be fetched by {scheme}: use https"
        )
        raise RequestError(f"{text} {why}, or download it and give the file")
    if parts.hostname in HUB_HOSTS:
        # What a browser shows: the page of a model, of one of its revisions or of one of its files.
        user, name, at, revision, file = (*parts.path.strip("/").split("/", 4), "", "", "", "", "")[:5]
        repo = f"{user}/{name}"
        if _HUB.match(repo) and at in ("", "tree", "blob", "resolve"):
            return Source("hub", text, Hub(repo, unquote(revision) or None, unquote(file) or None))
    return Source("url", text)


def _looks_like_a_path(text: str) -> bool:
    parts = text.split("/")
    return (
        text.startswith(("/", ".", "~"))
        or "\\" in text
        or text.endswith("/")
        or text.lower().endswith((*ENDINGS, *EXPORTED))
        or (len(parts) > 2 and "@" not in text)
        or (len(parts) > 1 and (parts[0] == OURS or Path(parts[0]).is_dir()))
    )


def _no_path(path: Path) -> RequestError:
    text = str(path)
    hint = ""
    if not path.is_absolute() and _HUB.match(text) and not text.lower().endswith(ENDINGS):
        here = f"{path.parts[0]} is a folder here" if Path(path.parts[0]).is_dir() else f"{path.parts[0]} is for paths"
        hint = f" ({here}; a model of the Hugging Face hub would be hf://{text})"
    return RequestError(f"there is no model {text}{_near(path)}: give a run folder or a checkpoint file{hint}")


def _near(path: Path) -> str:
    """Something that is there and has nearly this name."""
    there = list(TORCHVISION) if len(path.parts) == 1 else []
    folders = [path.parent, Path(OURS)] if len(path.parts) == 1 else [path.parent]
    for folder in folders:
        try:
            there += [str(entry) for entry in folder.iterdir()]
        except OSError:
            continue
    by_name = {Path(name).name.lower(): name for name in reversed(there)}
    near = difflib.get_close_matches(path.name.lower(), by_name, n=1, cutoff=0.75)
    return f", did you mean {by_name[near[0]]}?" if near else ""
