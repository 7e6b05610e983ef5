"""Options of the command line, made from the dataclasses of settings."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Sequence
from typing import Annotated, Any, TypedDict, get_args, get_origin, get_type_hints

from cyclopts import Group, Parameter

from retinanet.cli.shared_options import COMMON, MORE, OPTIONS
from retinanet.common.arguments import whole
from retinanet.config import keyword_settings, recipes
from retinanet.config.convert import dotted
from retinanet.terminal.console import Output

SHORT = {path: f"--{name.replace('_', '-')}" for name, path in keyword_settings.SHORT.items()}
"""Settings with a short name."""
USUAL = ("train.budget", "train.epochs", "train.weights", "model.preprocessing.size", "train.batch_size", "data.val")
"""Settings that ``--help`` shows; the others are for ``--help-all``."""
METAVARS = {"train.budget": "TIME", "train.weights": "MODEL", "data.train": "SPLIT", "data.val": "SPLIT"}

FITTED = {
    **dict.fromkeys((f"model.backbone.{name}" for name in ("name", "options", "weights")), "fitted"),
    **dict.fromkeys((f"model.backbone.{name}" for name in ("frozen_norm", "frozen_stages")), "fitted"),
    **dict.fromkeys(("model.pyramid.channels", "model.head.depth", "model.head.width"), "fitted"),
    **dict.fromkeys(("model.preprocessing.size", "model.preprocessing.longer"), "fitted"),
    **dict.fromkeys((f"model.anchors.{name}" for name in ("sizes", "first_level", "scales", "ratios")), "fitted"),
    **dict.fromkeys((f"train.{name}" for name in ("batch_size", "accumulate", "lr", "beta2", "ema")), "fitted"),
    **dict.fromkeys(("train.eval_every", "train.steps"), "fitted"),
    **{"train.lr_batch": "0", "train.backbone_lr": "fitted", "train.weights": "auto, the best within reach"},
    **{"train.epochs": "a fitted number of steps", "train.budget": "a fitted number of steps"},
}
"""What stands for the default of a setting that is chosen for the data and the machine, where the user chooses none.

All others have the value of the recipe that fitted settings start from.
"""
SECTIONS = ("train", "data", "model", "matching", "loss")
"""The order of the settings in ``--help-all``."""


def given(kind: Any, where: str = "", defaults: bool = True) -> Any:
    """A TypedDict type with the fields of a settings dataclass, all optional.

    cyclopts fills in only the values that the user gave, so a recipe can replace defaults. In an instance of the
    dataclass, a given value could not be told from a default.

    Args:
        where: dotted name of the section. defaults: show in ``--help`` what is taken for a setting that is not given.
    """
    import docstring_parser

    hints, fields = get_type_hints(kind), {}
    # The docstring of an attribute describes the setting; that of the class stands above the group.
    documented = docstring_parser.parse_from_object(kind)
    described = {parameter.arg_name: parameter.description for parameter in documented.params}
    top = where.split(".")[0]
    group = Group(
        where or "settings",
        help=documented.short_description or "",
        sort_key=(SECTIONS.index(top) if top in SECTIONS else len(SECTIONS), where),
    )
    for field in dataclasses.fields(kind):
        full = f"{where}.{field.name}" if where else field.name
        name = field.name.replace("_", "-")
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            fields[field.name] = Annotated[given(hint, full, defaults), Parameter(name=name)]
            continue
        short = SHORT.get(full)
        is_tuple = tuple in (get_origin(hint), *map(get_origin, get_args(hint)))
        default = f" [default: {_default(full, field)}]" if defaults else ""
        fields[field.name] = Annotated[
            dict[str, str] if get_origin(hint) is dict else hint,
            Parameter(
                name=(short, name) if short else name,
                help=f"{described.get(field.name) or ''}{default}".strip(),
                group=OPTIONS if full in USUAL else MORE if short else group,
                metavar=METAVARS.get(full),
                consume_multiple=get_origin(hint) is tuple and get_args(hint)[-1] is Ellipsis,
                negative=() if is_tuple or short or get_origin(hint) is dict else None,
            ),
        ]
    return TypedDict(f"Given{kind.__name__}", fields, total=False)  # type: ignore[operator]


def _default(name: str, field: Any) -> str:
    """What is taken if the user gives neither this setting nor a recipe."""
    if name in FITTED:
        return FITTED[name]
    default = field.default_factory() if field.default is dataclasses.MISSING else field.default
    scratch, finetuned = (_shown(_recipe(recipe).get(name, default)) for recipe in (recipes.FITTED, recipes.FINETUNED))
    if scratch == finetuned or name.startswith("model."):  # the model settings of a checkpoint come from it
        return scratch
    return f"{scratch}, or {finetuned} to fine-tune a detector"


def _shown(value: Any) -> str:
    values = value if isinstance(value, tuple | list) else (value,)
    return " ".join(f"{v:.4g}" if isinstance(v, float) else str(v).lower() for v in values if v != {}) or "none"


@functools.cache
def _recipe(name: str) -> dict[str, Any]:
    """The dotted settings of a recipe that fitted settings start from."""
    return dotted(recipes.values(name))


@Parameter(name="*", group=COMMON)
@dataclasses.dataclass(frozen=True)
class Common:
    """The options of every command."""

    json: str | None = None
    """Write the result as JSON to this file. Without a file, or with -, it goes to standard output, and all text to
    standard error."""
    quiet: Annotated[bool, Parameter(name=("--quiet", "-q"), negative=(), show_default=False)] = False
    """Print only errors."""
    debug: Annotated[bool, Parameter(negative=(), show_default=False)] = False
    """Show the traceback of an error."""


def output_of(common: Common | None) -> Output:
    """The output that the options of a command ask for."""
    common = common or Common()
    return Output(common.json, common.quiet)


def limit_pixels(value: int | None) -> None:
    """Limit the pixels of an image in this process and those that it starts, as ``--max-pixels`` says.

    Raises:
        RequestError: the value is below 1.
    """
    if value is not None:
        os.environ["RETINANET_MAX_PIXELS"] = str(whole("--max-pixels", value))


def plain_json(arguments: Sequence[str]) -> list[str]:
    """The arguments with ``--json`` or ``--json -`` as ``--json=-``: cyclopts requires a value that is no option."""
    result, rest = [], list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument == "--json" and (not rest or rest[0].startswith("-")):
            argument = "--json=-"
            if rest and rest[0] == "-":
                rest.pop(0)
        result.append(argument)
    return result
