"""Safe YAML: no bomb of references, and no nesting that exhausts the stack."""

from __future__ import annotations

from typing import Any

from retinanet.common.printable import printable

NESTED = 20
"""Levels of lists and mappings inside each other."""
PLAIN = 2000
"""Characters of a text without quotes, which may become a number. Quoted texts and blocks may be longer."""


def base() -> Any:
    """PyYAML's loader for plain values; the fast one if it is installed."""
    import yaml

    return yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader


def load(text: str, loader: Any, references: bool = False) -> Any:
    """The value that a YAML document holds.

    References to a list or mapping are refused, because a few lines of them can stand for terabytes.

    Args:
        loader: a class derived from :func:`base`.
        references: allow references to a list or mapping. A few lines of them can stand for more than any memory
            holds, so only for a reader that never visits all of a value.

    Raises:
        yaml.YAMLError: the text is not valid, or exceeds a limit.
    """
    import yaml

    depth, collections = 0, set()
    for event in yaml.parse(text, Loader=base()):
        problem = ""
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            collections.add(event.anchor)
            problem = f"more than {NESTED} lists inside each other" if depth > NESTED else ""
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.AliasEvent) and event.anchor in collections and not references:
            problem = f"*{printable(event.anchor, 60)} repeats a whole list or mapping: write it out"
        elif isinstance(event, yaml.ScalarEvent) and (event.implicit[0] or event.tag) and len(event.value) > PLAIN:
            problem = f"{len(event.value)} characters without quotes"
        if problem:
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
    try:
        return yaml.load(text, Loader=loader)
    except (ValueError, TypeError, LookupError, AttributeError) as error:  # a date of month 99, a !!int of nothing
        raise yaml.YAMLError(f"{type(error).__name__}: {error}") from None
