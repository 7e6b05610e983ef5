"""retinanet push"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from retinanet.cli.model_argument import load, require_model
from retinanet.cli.options import Common, output_of
from retinanet.cli.shared_options import Model
from retinanet.common.atomic_files import require_new, what_is_wrong
from retinanet.common.errors import WorkError


def push(
    model: Model,
    name: str,
    /,
    *,
    private: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    license: str | None = None,
    data: str | None = None,
    dry_run: Path | None = None,
    common: Common | None = None,
) -> None:
    """Push a detector to the Hugging Face hub, with a model card.

    Examples
    --------
    retinanet push runs/pets-1 user/name --license apache-2.0 --data "Oxford pets"

    Parameters
    ----------
    name
        The repository: user/name or organisation/name. It is created where it does not exist.
    private
        Make a new repository private.
    license
        The license of the weights, as the hub writes it: apache-2.0, mit, cc-by-4.0, ...
    data
        The data set of training and evaluation: a name, or its id on the hub. [default: the name of the run's data
        folder]
    dry_run
        Write the files into this new folder and push nothing.
    """
    out = output_of(common)
    require_model(model, weights=True)

    from retinanet.checkpoints import hub

    hub.require_name(name)
    if dry_run is None:
        hub.require_token()  # fails before a model is loaded
    else:
        require_new(dry_run, "with --dry-run")
    checkpoint = load(model, "cpu", "fp32").checkpoint()
    facts: dict[str, Any] = {"license": license, "data": data, "run": hub.run_facts(model)}
    if dry_run is None:
        page = hub.push(checkpoint, name, private=private, **facts)
        out.say(f"pushed to {page}")
        out.json({"model": model, "repository": name, "url": page})
        return
    try:
        dry_run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkError(f"cannot write {dry_run}: {what_is_wrong(error)}") from error
    files = hub.write_files(checkpoint, dry_run, name, **facts)
    out.say(f"in {dry_run}: {', '.join(file.name for file in files)}; nothing was pushed")
    out.json({"model": model, "repository": name, "files": files})
