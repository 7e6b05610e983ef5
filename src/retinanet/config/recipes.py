"""Recipes: YAML files of settings. They replace defaults, and options of the user replace them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retinanet.common import safe_yaml
from retinanet.common.errors import RequestError, first_line
from retinanet.common.fields import SettingsError, from_plain
from retinanet.common.text import read_text
from retinanet.config.convert import FREE, merge
from retinanet.config.settings import LENGTHS, Settings

LONGEST = 2**18  # bytes of a recipe; one with weights for a thousand classes needs a tenth
FITTED = "scratch-small"  # the recipe that fitted settings start from
FINETUNED = "finetune-adamw"  # the same to fine-tune a detector


def load(recipe: str | None, overrides: Mapping[str, Any] | None) -> Settings:
    """Settings from the defaults, the recipe and the options, in rising precedence.

    Raises:
        RequestError: the recipe cannot be read, or a setting cannot be used.
    """
    return from_plain(Settings, over(values(recipe), overrides))


def values(recipe: str | None) -> dict[str, Any]:
    """The settings of a recipe as nested values; empty without one.

    Raises:
        RequestError: the recipe cannot be read, or a setting in it cannot be used.
    """
    if recipe is None:
        return {}
    path = find(recipe)
    content = read_yaml(path)
    try:
        from_plain(Settings, content)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from None
    return content


def over(values: Mapping[str, Any], overrides: Mapping[str, Any] | None) -> dict[str, Any]:
    """Nested values, in which options of the command line replace others."""
    extra, values = _parse_options(overrides or {}), dict(values)
    if any(extra.get("train", {}).get(name) is not None for name in LENGTHS):
        # A length on the command line replaces the recipe's, which may be of another kind.
        values["train"] = {k: v for k, v in values.get("train", {}).items() if k not in LENGTHS}
    return merge(values, extra)


def weights(recipe: str | None, overrides: Mapping[str, Any] | None) -> str:
    """``train.weights`` in the recipe and the options: a file or checkpoint to start from, or one of ``STARTS``.

    Without a recipe, where settings are fitted, the default is "auto", unless the options name the backbone's weights.
    """
    found = over(values(recipe), overrides)
    default = "auto" if recipe is None and "weights" not in found.get("model", {}).get("backbone", {}) else "none"
    return str(found.get("train", {}).get("weights", default))


def _parse_options(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """``overrides`` with values parsed as YAML (8 is a number) where the user's own names are the keys.

    Raises:
        RequestError: a value is not YAML.
    """
    result = merge({}, overrides)
    for *sections, name in (free.split(".") for free in FREE):
        inner: Mapping[str, Any] = result
        for section in sections:
            inner = inner.get(section) or {}
        if values := inner.get(name):
            parsed: dict[str, Any] = {
                key: _parse(f"{'.'.join(sections)}.{name}.{key}", value) if isinstance(value, str) else value
                for key, value in values.items()
            }
            for section in reversed((*sections, name)):
                parsed = {section: parsed}
            result = merge(result, parsed)
    return result


def _parse(name: str, text: str) -> Any:
    import yaml

    try:
        return safe_yaml.load(text, _loader())
    except yaml.YAMLError as error:
        reason = first_line(getattr(error, "problem", None) or error)
        raise RequestError(f"--{name} {text[:80]!r} is not YAML: {reason}") from None


def recipes() -> dict[str, Path]:
    """The recipes of the package, by name. In a checkout they are in the folder ``recipes``."""
    package = Path(__file__).resolve().parents[1]
    folder = next((f for f in (package / "recipes", package.parents[1] / "recipes") if f.is_dir()), package)
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find(name: str) -> Path:
    """The file of a recipe, given by its path or its name.

    Raises:
        RequestError: there is no such recipe.
    """
    path = Path(name)
    if path.is_file():
        return path
    known = recipes()
    if path.stem in known and path.parent == Path("."):
        return known[path.stem]
    raise RequestError(f"no recipe {name!r}: give a YAML file or one of {', '.join(known)}")


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; empty if the file is.

    Raises:
        RequestError: the file cannot be read, or holds no mapping.
    """
    import yaml

    try:
        values = safe_yaml.load(read_text(path, LONGEST), _loader())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise RequestError(f"{path}{line}: not YAML: {first_line(getattr(error, 'problem', None) or error)}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise RequestError(f"{path}: a recipe must be a mapping of names to values, not {type(values).__name__}")
    return values


@functools.cache
def _loader() -> Any:
    """A loader with YAML 1.2's numbers. PyYAML follows YAML 1.1, to which 1e-3 is text."""
    import re

    class Loader(safe_yaml.base()):  # type: ignore[misc]
        pass

    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
    )
    return Loader
