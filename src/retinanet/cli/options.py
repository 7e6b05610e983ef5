"""Options of the command line, made from the dataclasses of settings."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Annotated, Any, TypedDict, get_args, get_origin, get_type_hints

from cyclopts import Group, Parameter

from retinanet.common.arguments import whole
from retinanet.terminal.console import Output

SHORT = {
    "train.weights": "--weights",
    "train.epochs": "--epochs",
    "train.steps": "--steps",
    "train.budget": "--budget",
    "train.batch_size": "--batch-size",
    "train.seed": "--seed",
    "train.devices": "--devices",
    "data.train": "--train",
    "data.val": "--val",
    "data.strict": "--strict",
}
"""Frequent settings: they have a short name, and stand at the top of ``--help``."""

FREQUENT = Group("Frequent settings", sort_key=(-1, ""))
SECTIONS = ("train", "data", "model", "matching", "loss")
"""The order of the settings in ``--help``."""


def given(kind: Any, where: str = "", defaults: bool = True) -> Any:
    """A TypedDict type with the fields of a settings dataclass, all optional.

    cyclopts fills in only the values that the user gave, so a recipe can replace defaults. In an instance of the
    dataclass, a given value could not be told from a default.

    Args:
        where: dotted name of the section. defaults: show the defaults of the dataclass in ``--help``.
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
        dotted = f"{where}.{field.name}" if where else field.name
        name = field.name.replace("_", "-")
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            fields[field.name] = Annotated[given(hint, dotted, defaults), Parameter(name=name)]
            continue
        short = SHORT.get(dotted)
        is_tuple = tuple in (get_origin(hint), *map(get_origin, get_args(hint)))
        fields[field.name] = Annotated[
            dict[str, str] if get_origin(hint) is dict else hint,
            Parameter(
                name=(short, name) if short else name,
                help=f"{described.get(field.name) or ''}{f' [default: {_shown(field)}]' if defaults else ''}".strip(),
                group=FREQUENT if short else group,
                consume_multiple=get_origin(hint) is tuple and get_args(hint)[-1] is Ellipsis,
                negative=() if is_tuple or short or get_origin(hint) is dict else None,
            ),
        ]
    return TypedDict(f"Given{kind.__name__}", fields, total=False)  # type: ignore[operator]


def _shown(field: Any) -> str:
    value = field.default_factory() if field.default is dataclasses.MISSING else field.default
    values = value if isinstance(value, tuple) else (value,)
    return " ".join(f"{v:.4g}" if isinstance(v, float) else str(v).lower() for v in values if v != {}) or "none"


@Parameter(name="*")
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
