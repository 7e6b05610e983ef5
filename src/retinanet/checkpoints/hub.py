"""Models on the Hugging Face hub: fetched into its client's cache, and pushed with a model card.

Pushed are model.safetensors, which is all that :func:`retinanet.load` needs, config.json with the settings and class
names for readers and programs, and the model card README.md; in one commit.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from retinanet.checkpoints import native
from retinanet.checkpoints.download import reachable
from retinanet.checkpoints.locate import Hub, choose, in_folder
from retinanet.checkpoints.model_card import model_card
from retinanet.checkpoints.native import Checkpoint, threshold
from retinanet.common.atomic_files import what_is_wrong
from retinanet.common.errors import RequestError, WorkError, first_line
from retinanet.common.version import __version__
from retinanet.config.settings import ModelSettings, to_plain
from retinanet.weight_files import metadata

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
BESIDE = (CONFIG, "config.yaml")
"""What says more of a checkpoint than it does itself; Detectron2's is YAML."""
WAIT = 20.0
"""Seconds for an answer of the hub."""
LOG_IN = "run `hf auth login`, or set HF_TOKEN to a token of yours"


def fetch(repo: str, revision: str | None = None, file: str | None = None, token: str | None = None) -> Path:
    """The checkpoint file of a model on the hub; of its other files only those that say more of it are fetched too.

    Without a network it is what the cache holds, at once.

    Args:
        repo: "user/name". revision: a branch, tag or commit. file: in the repository, where it has several models.

    Raises:
        RequestError: there is no such model, revision or file, or it is not to be had without logging in.
        WorkError: the hub cannot be reached, and the model is not in the cache.
    """
    from huggingface_hub import HfApi, constants, hf_hub_download

    source = Hub(repo, revision, file)
    require_name(repo)
    if constants.HF_HUB_OFFLINE or not reachable(constants.ENDPOINT):
        if found := _cached(source):
            return found
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "cannot be reached"
        raise WorkError(f"{repo} is not in the cache of the Hugging Face hub ({constants.ENDPOINT}), and {_why(why)}")
    try:
        with _in_words(f"{repo} cannot be downloaded", source, token), _quiet():
            info = HfApi().model_info(repo, revision=revision, timeout=WAIT, token=token)
            files = [sibling.rfilename for sibling in info.siblings or []]
            name = file or choose([f for f in files if "/" not in f], repo) or choose(files, repo)
            if name is None:
                raise RequestError(f"{repo} on the Hugging Face hub has no checkpoint, only {', '.join(files[:5])}")
            path = Path(hf_hub_download(repo, name, revision=revision, token=token))
            commit = path.parents[len(PurePosixPath(name).parts) - 1].name
            for beside in (str(PurePosixPath(name).with_name(config)) for config in BESIDE):
                if beside in files:
                    hf_hub_download(repo, beside, revision=commit, token=token)
    except WorkError:
        if found := _cached(source):  # a hub that is down is as good as none
            return found
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
    """Put a checkpoint on the hub, in a repository that is made if there is none. The address of its page.

    A model card that is there already is replaced; the hub keeps the old one in its history.

    Args:
        repo: "user/name". private: of a new repository.
        token: by default that of ``hf auth login`` or HF_TOKEN.
        message: of the commit.
        card: as :func:`retinanet.checkpoints.model_card.model_card` takes them: license, data, metrics, run.

    Raises:
        RequestError: there is no token, or it may not write there; or the card's facts cannot be used.
        WorkError: the hub cannot be reached or does not take the files.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, constants

    require_name(repo)
    token = require_token(token)
    with tempfile.TemporaryDirectory(prefix="retinanet-push-") as folder:
        files = write_files(checkpoint, Path(folder), repo, **card)
        if constants.HF_HUB_OFFLINE or not reachable(constants.ENDPOINT):
            why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "cannot be reached"
            raise WorkError(f"{repo} cannot be pushed to the Hugging Face hub ({constants.ENDPOINT}): {_why(why)}")
        with _in_words(f"{repo} cannot be pushed", Hub(repo), token), _quiet():
            api = HfApi(token=token, library_name="retinanet", library_version=__version__)
            page = api.create_repo(repo, private=private, exist_ok=True)
            api.create_commit(
                repo,
                [CommitOperationAdd(path.name, path) for path in files],
                commit_message=message
                or f"A detector of {len(checkpoint.class_names)} classes by retinanet {__version__}",
            )
    return str(page)


def write_files(checkpoint: Checkpoint, folder: Path, repo: str, **card: Any) -> list[Path]:
    """The files of a model on the hub, written into a folder that is there; arguments as :func:`push` takes them."""
    text = model_card(checkpoint, repo, **card)
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
    """Settings to publish: of the file that training began with the name alone, not the folders of this machine."""
    weights = settings.backbone.weights
    return replace(settings, backbone=replace(settings.backbone, weights=weights.replace("\\", "/").rpartition("/")[2]))


def require_token(token: str | None = None) -> str:
    """
    Raises:
        RequestError: none is given, and none is kept on this machine.
    """
    from huggingface_hub import get_token

    token = token or get_token()
    if not token:
        raise RequestError(
            f"there is no token for the Hugging Face hub: {LOG_IN} (https://huggingface.co/settings/tokens)"
        )
    return token


def require_name(repo: str) -> None:
    """
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
    """What an earlier fetch left in the client's cache (refs/, snapshots/), without asking anybody."""
    from huggingface_hub import constants

    root = Path(constants.HF_HUB_CACHE) / f"models--{source.repo.replace('/', '--')}"
    revision = source.revision or constants.DEFAULT_REVISION
    if ".." in revision.split("/"):
        return None
    try:
        commit = (root / "refs" / revision).read_text(encoding="utf-8").strip()
    except OSError:
        commit = revision
    folder = root / "snapshots" / commit
    if source.file:
        return folder / source.file if (folder / source.file).is_file() else None
    try:
        return in_folder(folder)
    except (OSError, RequestError):
        return None


def _why(why: str) -> str:
    return f"{why}: connect to a network, or give a file" if why.startswith("cannot") else why


@contextmanager
def _in_words(failed: str, source: Hub, token: str | None) -> Iterator[None]:
    """The client's errors in one line each."""
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
        raise WorkError(f"{failed}: the hub does not answer ({first_line(error.__cause__ or error)})") from error
    except errors.EntryNotFoundError as error:
        raise RequestError(f"{failed}: it has no file {source.file}; see {constants.ENDPOINT}/{repo}") from error
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", 0)
        said = " ".join(str(getattr(error, "server_message", None) or first_line(error)).split()).rstrip(".")
        if status == 401 and not (
            token or get_token()
        ):  # so the hub answers for what is not there, if nobody is logged in
            raise RequestError(f"{failed}: {unknown}") from error
        if status in (401, 403):
            raise RequestError(f"{failed}: your token is not accepted for it ({said}); {LOG_IN}") from error
        raise WorkError(f"{failed}: the hub answers {status} ({said}); try again later") from error
    except Exception as error:  # of the HTTP library, whichever this version of the client uses; a full disk
        raise WorkError(f"{failed}: {first_line(error)}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """The client's progress bars are for terminals."""
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
    """What the folder of a run says about its model (see :mod:`retinanet.training.run_folder`); None if it is none.

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
            known = metadata.parse(metadata.read_bytes(folder / f"{name}.json"))
        except (OSError, ValueError):
            continue
        if isinstance(known, dict):
            facts[name] = known
    return facts or None
