"""YAML from a stranger: no bomb of references, no nesting that exhausts the stack."""

from __future__ import annotations

from typing import Any

from retinanet.common.printable import printable

NESTED = 20
"""Lists and mappings inside each other."""
PLAIN = 2000
"""Characters of a text without quotes, which may become a number; quoted ones and blocks may be longer."""


def base() -> Any:
    """The loader of this PyYAML that makes nothing but plain values, the fast one where it is there."""
    import yaml

    return yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader


def load(text: str, loader: Any, references: bool = False) -> Any:
    """The value that a YAML document holds.

    Args:
        loader: a class derived from :func:`base`.
        references: allow references to a list or mapping. A few lines of them can stand for more than any memory
            holds, so only for a reader that never visits all of a value.

    Raises:
        yaml.YAMLError: it is not valid, or more than any description of a data set needs.
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
