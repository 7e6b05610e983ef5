"""Options of the command line, made from the dataclasses of config.py."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Annotated, Any, TypedDict, get_args, get_origin, get_type_hints

from cyclopts import Group, Parameter

from retinanet.common.arguments import whole

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
"""Settings that are given so often that they have a name without a dot, and stand at the top of ``--help``."""

OFTEN = Group("Settings given most often", sort_key=(-1, ""))
SECTIONS = ("train", "data", "model", "matching", "loss")
"""The order of the settings in ``--help``."""


def given(kind: Any, where: str = "", defaults: bool = True) -> Any:
    """A TypedDict with the fields of a settings dataclass, none required.

    The command-line library fills in only what the user gave, so that a recipe can stand between the defaults and
    the command line; of a dataclass it would make a whole one, in which a given value looks like a default.

    Args:
        defaults: whether ``--help`` names those of the dataclass.
    """
    import docstring_parser

    hints, fields = get_type_hints(kind), {}
    # An attribute's docstring describes the setting; the class's own stands above the group.
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
                group=OFTEN if short else group,
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
    """What every command takes."""

    json: str | None = None
    """Write the result to this file; without a file, or with -, to standard output (all text goes to standard
    error then)."""
    quiet: Annotated[bool, Parameter(name=("--quiet", "-q"), negative=(), show_default=False)] = False
    """Print nothing but errors."""
    debug: Annotated[bool, Parameter(negative=(), show_default=False)] = False
    """Show the traceback of an error."""


def limit_pixels(value: int | None) -> None:
    """Set the most pixels of an image for the rest of this process and for those that it starts, from ``--max-pixels``.

    Raises:
        RequestError: it is below 1.
    """
    if value is not None:
        os.environ["RETINANET_MAX_PIXELS"] = str(whole("--max-pixels", value))


def plain_json(arguments: Sequence[str]) -> list[str]:
    """``--json`` without a file, or with -, means standard output; the library wants a value that is no option."""
    result, rest = [], list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument == "--json" and (not rest or rest[0].startswith("-")):
            argument = "--json=-"
            if rest and rest[0] == "-":
                rest.pop(0)
        result.append(argument)
    return result
