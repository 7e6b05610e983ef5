"""Models on the Hugging Face hub: fetch one into the client's cache, or push one with a model card.

A push is one commit of three files: model.safetensors, which is all that :func:`retinanet.load` needs, config.json with
the settings and class names for readers and programs, and the model card README.md.
"""

from __future__ import annotations

import inspect
import io
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from retinanet.checkpoints import native
from retinanet.checkpoints.download import Watch, reachable
from retinanet.checkpoints.locate import Hub, choose, in_folder
from retinanet.checkpoints.model_card import card_text
from retinanet.checkpoints.native import Checkpoint, threshold
from retinanet.common.atomic_files import what_is_wrong
from retinanet.common.errors import RequestError, WorkError, first_line
from retinanet.common.version import __version__
from retinanet.config.convert import to_plain
from retinanet.config.model_settings import ModelSettings
from retinanet.weight_files import metadata

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
BESIDE = (CONFIG, "config.yaml")
"""Files that describe the checkpoint beside them; Detectron2's is YAML."""
WAIT = 20.0
"""Seconds to wait for a response of the hub."""
LOG_IN = "run `hf auth login`, or set HF_TOKEN to a token of yours"


def fetch(
    repo: str,
    revision: str | None = None,
    file: str | None = None,
    token: str | None = None,
    watch: Watch | None = None,
) -> Path:
    """The checkpoint file of a model on the hub, downloaded with the files that describe it.

    Without a network, the file in the cache, at once.

    Args:
        repo: "user/name". revision: a branch, tag or commit. file: in the repository, where it has several models.
        watch: shows the progress of the checkpoint's download. Without it there is a bar in a terminal.

    Raises:
        RequestError: there is no such model, revision or file, or it needs a login.
        WorkError: the hub cannot be reached, and the model is not in the cache.
    """
    from huggingface_hub import HfApi, constants, hf_hub_download

    source = Hub(repo, revision, file)
    require_name(repo)
    if why := _why_offline():
        if path := _cached(source):
            return path
        raise WorkError(f"{repo} is not in the cache of the Hugging Face hub ({constants.ENDPOINT}), and {why}")
    try:
        with _one_line_errors(f"{repo} cannot be downloaded", source, token), _quiet():
            info = HfApi().model_info(repo, revision=revision, timeout=WAIT, token=token)
            files = [sibling.rfilename for sibling in info.siblings or []]
            name = file or choose([f for f in files if "/" not in f], repo) or choose(files, repo)
            if name is None:
                raise RequestError(f"{repo} on the Hugging Face hub has no checkpoint, only {', '.join(files[:5])}")
            path = Path(hf_hub_download(repo, name, revision=revision, token=token, **_watched(watch)))
            commit = path.parents[len(PurePosixPath(name).parts) - 1].name
            for beside in (str(PurePosixPath(name).with_name(config)) for config in BESIDE):
                if beside in files:
                    hf_hub_download(repo, beside, revision=commit, token=token)
    except WorkError:
        if cached := _cached(source):  # the hub may be out of order
            return cached
        raise
    return path


def push(
    checkpoint: Checkpoint,
    repo: str,
    *,
    private: bool = False,
    token: str | None = None,
    message: str | None = None,
    **card: Any,
) -> str:
    """Push a checkpoint to the hub and return the URL of its page; a missing repository is created.

    An existing model card is replaced; the hub keeps the old one in its history.

    Args:
        repo: "user/name". private: of a new repository.
        token: by default that of ``hf auth login`` or HF_TOKEN.
        message: of the commit.
        card: as :func:`retinanet.checkpoints.model_card.card_text` takes them: license, data, metrics, run.

    Raises:
        RequestError: there is no token, or it may not write there; or the card's facts cannot be used.
        WorkError: the hub cannot be reached or does not accept the files.
    """
    from huggingface_hub import HfApi, constants

    require_name(repo)
    token = require_token(token)
    with tempfile.TemporaryDirectory(prefix="retinanet-push-") as folder:
        write_files(checkpoint, Path(folder), repo, **card)
        if why := _why_offline():
            raise WorkError(f"{repo} cannot be pushed to the Hugging Face hub ({constants.ENDPOINT}): {why}")
        with _one_line_errors(f"{repo} cannot be pushed", Hub(repo), token), _quiet():
            api = HfApi(token=token, library_name="retinanet", library_version=__version__)
            page = api.create_repo(repo, private=private, exist_ok=True)
            title = message or f"A detector of {len(checkpoint.class_names)} classes by retinanet {__version__}"
            api.upload_folder(repo_id=repo, folder_path=folder, commit_message=title)
    return str(page)


def write_files(checkpoint: Checkpoint, folder: Path, repo: str, **card: Any) -> list[Path]:
    """Write the files of a model on the hub into an existing folder; arguments as :func:`push` takes them."""
    text = card_text(checkpoint, repo, **card)
    settings = without_paths(checkpoint.settings)
    config = {
        "library_name": "retinanet",
        "model_type": "retinanet",
        "retinanet_version": __version__,
        "class_names": list(checkpoint.class_names),
        "threshold": threshold(checkpoint.extra),
        "settings": to_plain(settings),
    }
    try:
        (folder / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        (folder / CARD).write_text(text, encoding="utf-8")
    except OSError as error:
        raise WorkError(f"cannot write into {folder}: {what_is_wrong(error)}") from error
    native.save(folder / WEIGHTS, checkpoint.state, settings, checkpoint.class_names, checkpoint.extra)
    return [folder / WEIGHTS, folder / CONFIG, folder / CARD]


def without_paths(settings: ModelSettings) -> ModelSettings:
    """Settings to publish: without the folders of this machine in the name of the initial weights' file."""
    weights = settings.backbone.weights
    return replace(settings, backbone=replace(settings.backbone, weights=weights.replace("\\", "/").rpartition("/")[2]))


def require_token(token: str | None = None) -> str:
    """The given token, or that of this machine.

    Raises:
        RequestError: none is given, and this machine has none.
    """
    from huggingface_hub import get_token

    token = token or get_token()
    if not token:
        raise RequestError(
            f"there is no token for the Hugging Face hub: {LOG_IN} (https://huggingface.co/settings/tokens)"
        )
    return token


def require_name(repo: str) -> None:
    """Refuse a name that no model on the hub can have.

    Raises:
        RequestError: ``repo`` is not of the form "user/name".
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo)
        if repo.count("/") != 1:
            raise HFValidationError("it has the form user/name")
    except HFValidationError as error:
        raise RequestError(f"{repo!r} is no name of a model on the Hugging Face hub: {first_line(error)}") from error


def _cached(source: Hub) -> Path | None:
    """The file in the client's cache, without a request to the hub."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    if ".." in (source.revision or "").split("/"):
        return None
    try:
        folder = Path(snapshot_download(source.repo, revision=source.revision, local_files_only=True))
        path = folder / source.file if source.file else in_folder(folder)
    except (LocalEntryNotFoundError, OSError, RequestError):
        return None
    return path if path.is_file() else None


def _why_offline() -> str:
    """Why the hub cannot be used; empty where it can."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    return "" if reachable(constants.ENDPOINT) else "cannot be reached: connect to a network, or give a file"


@contextmanager
def _one_line_errors(failed: str, source: Hub, token: str | None) -> Iterator[None]:
    """Turn each of the client's errors into one of ours, of one line."""
    from huggingface_hub import constants, errors, get_token

    repo = source.repo
    unknown = f"the Hugging Face hub has no model {repo}, or it is private; check the name, or {LOG_IN}"
    try:
        yield
    except (RequestError, WorkError):
        raise
    except errors.GatedRepoError as error:
        raise RequestError(
            f"{failed}: its authors ask you to accept their terms; do so at {constants.ENDPOINT}/{repo}, then {LOG_IN}"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise RequestError(f"{failed}: {unknown}") from error
    except errors.RevisionNotFoundError as error:
        raise RequestError(
            f"{failed}: it has no revision {source.revision}; see {constants.ENDPOINT}/{repo}"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise WorkError(f"{failed}: the hub does not respond ({first_line(error.__cause__ or error)})") from error
    except errors.EntryNotFoundError as error:
        raise RequestError(f"{failed}: it has no file {source.file}; see {constants.ENDPOINT}/{repo}") from error
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", 0)
        reason = " ".join(str(getattr(error, "server_message", None) or first_line(error)).split()).rstrip(".")
        if status == 401 and not (token or get_token()):  # without a login, the hub's status for a missing model
            raise RequestError(f"{failed}: {unknown}") from error
        if status in (401, 403):
            raise RequestError(f"{failed}: your token is not accepted for it ({reason}); {LOG_IN}") from error
        raise WorkError(f"{failed}: the hub returns status {status} ({reason}); try again later") from error
    except Exception as error:  # a full disk, or an error of the HTTP library that this version of the client uses
        raise WorkError(f"{failed}: {first_line(error)}") from error


def _watched(watch: Watch | None) -> dict[str, Any]:
    """Arguments of the client's download by which it reports to ``watch``; none if its version has no such argument."""
    from huggingface_hub import hf_hub_download
    from tqdm import tqdm  # type: ignore[import-untyped]

    if watch is None or "tqdm_class" not in inspect.signature(hf_hub_download).parameters:
        return {}
    report = watch

    class Reporting(tqdm):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            options.pop("name", None)  # the client's own class takes it
            super().__init__(*arguments, **{**options, "file": io.StringIO(), "disable": False})

        def update(self, n: float | None = 1) -> bool | None:
            shown = super().update(n)
            report(int(self.n), int(self.total) if self.total else None)
            return shown

    return {"tqdm_class": Reporting}


@contextmanager
def _quiet() -> Iterator[None]:
    """Switch the client's progress bars off where there is no terminal."""
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    change = not sys.stderr.isatty() and not are_progress_bars_disabled()
    if change:
        disable_progress_bars()
    try:
        yield
    finally:
        if change:
            enable_progress_bars()


def run_facts(model: str | Path) -> Mapping[str, Any] | None:
    """The JSON in the run folder of a model (see :mod:`retinanet.training.run_folder`); None where there is none.

    Args:
        model: the folder, or a checkpoint in it.
    """
    path = Path(model)
    folder = path if path.is_dir() else path.parent
    if not (folder / "run.json").is_file():
        return None
    facts: dict[str, Any] = {}
    for name in ("run", "evaluation"):
        try:
            known = metadata.read(folder / f"{name}.json")
        except (OSError, ValueError):
            continue
        if isinstance(known, dict):
            facts[name] = known
    return facts or None
