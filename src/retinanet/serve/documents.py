"""The OpenAPI document as a page that loads nothing from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader


def document(spec: dict[str, Any]) -> str:
    """
    Args:
        spec: as ``FastAPI.openapi()`` makes it.
    """
    operations = [
        {"method": method.upper(), "path": path, **operation}
        for path, methods in spec["paths"].items()
        for method, operation in methods.items()
    ]
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent / "page"), autoescape=True)
    environment.filters["kind"] = _kind
    return environment.get_template("docs.html.jinja").render(
        spec=spec, operations=operations, schemas=spec["components"]["schemas"]
    )


def _kind(schema: dict[str, Any]) -> str:
    """A schema's type in words: "number", "list of Found", "ImageDetections or Bad"."""
    if "$ref" in schema:
        return str(schema["$ref"].rsplit("/", 1)[-1])
    for joint in ("anyOf", "oneOf"):
        if joint in schema:
            return " or ".join(_kind(part) for part in schema[joint] if part.get("type") != "null")
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    limits = [
        f"{sign} {schema[key]:g}"
        for key, sign in (("minimum", "≥"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
        if key in schema
    ]
    return " ".join([str(schema.get("type", "anything")), *limits])
