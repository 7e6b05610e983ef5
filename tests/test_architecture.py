"""The house of the code: which package may import which, and that every module has a name of its own.

All import sites count: at the top of a module, inside a function, and those for type checkers alone.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

SOURCE = Path(__file__).parents[1] / "src"
FLOORS = (
    {"common"},
    {"config"},
    {"weight_files", "ops"},
    {"losses"},
    {"model"},
    {"data", "checkpoints"},
    {"inference"},
    {"analysis", "evaluation"},
    {"report"},
    {"training", "exporting"},
    {"terminal"},
    {"api"},
    {"bench", "predict"},
    {"serve", "paper"},
    {"cli"},
)
"""From the ground up. A package imports from itself, from lower floors and from nowhere else."""
LOWER = {room: number for number, floor in enumerate(FLOORS) for room in floor}
FACE = {"retinanet", "retinanet.__main__"}
"""May import everything, and nothing imports them."""

USERS_OF_THE_FACE = {
    "retinanet.inference.detector": "detector.evaluate(...) and .export(...) are retinanet's functions"
}
"""The one module that uses the public face, in a line for each function, and the reason."""

LATE = {
    "retinanet.bench.torchvision_bench": "Lightning, which only the training step needs, takes seconds to import",
    "retinanet.checkpoints": "the command line recognises names of models without PyTorch",
    "retinanet.checkpoints.architecture": "timm takes seconds to import",
    "retinanet.exporting.openvino.openvino_runtime": "other processes import it without PyTorch",
    "retinanet.inference.detections": "drawing is needed by few programs",
    "retinanet.losses.focal": "Triton is optional",
    "retinanet.terminal.console": "rich takes time to import, and ``--help`` does not need it",
    **USERS_OF_THE_FACE,
}
"""Modules outside of ``cli`` that import others inside of functions, and the reason."""


class Import(NamedTuple):
    importer: str
    imported: str
    line: int
    function: str | None


def modules() -> dict[str, Path]:
    """Dotted names and files of all modules."""
    names = {path: path.relative_to(SOURCE).with_suffix("").parts for path in SOURCE.rglob("*.py")}
    return {".".join(parts).removesuffix(".__init__"): path for path, parts in names.items()}


def imports_of(tree: ast.AST, function: str | None = None) -> Iterator[tuple[str, list[str], int, str | None]]:
    """(module, names from it, line, function it stands in) of every import of the project in a module."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, [], node.lineno, function
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module or "", [alias.name for alias in node.names], node.lineno, function
        inside = node.name if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else function
        yield from imports_of(node, inside)


@pytest.fixture(scope="module")
def graph() -> list[Import]:
    known = modules()
    found = []
    for importer, path in known.items():
        for module, names, line, function in imports_of(ast.parse(path.read_text(encoding="utf-8"))):
            if module.split(".")[0] != "retinanet":
                continue
            targets = {f"{module}.{name}" if f"{module}.{name}" in known else module for name in names} or {module}
            found += [Import(importer, target, line, function) for target in targets if target != importer]
    return found


def room(module: str) -> str:
    return module.split(".")[1]


def uses_the_face(edge: Import) -> bool:
    return edge.importer in USERS_OF_THE_FACE and edge.imported == "retinanet" and edge.function is not None


def test_arrows_point_down(graph: list[Import]) -> None:
    upward = []
    for edge in graph:
        if edge.importer in FACE or uses_the_face(edge):
            continue
        if edge.imported in FACE or (
            room(edge.importer) != room(edge.imported) and LOWER[room(edge.imported)] >= LOWER[room(edge.importer)]
        ):
            upward.append(f"{edge.importer}:{edge.line} imports {edge.imported}")
    assert not upward, "\n".join(upward)


def test_no_circle(graph: list[Import]) -> None:
    """Modules without imports are taken away until none is left; what stays is a circle or leads to one."""
    left: dict[str, set[str]] = {}
    for edge in graph:
        if not uses_the_face(edge):
            left.setdefault(edge.importer, set()).add(edge.imported)
    while free := {name for targets in left.values() for name in targets} - left.keys():
        left = {name: targets - free for name, targets in left.items() if targets - free}
    assert not left, f"a circle among {sorted(left)}"


def test_every_module_has_a_name_of_its_own() -> None:
    counts = Counter(name.rpartition(".")[2] for name in modules() if name != "retinanet")
    assert not [name for name, count in counts.items() if count > 1]


def test_every_package_stands_on_a_floor() -> None:
    rooms = {room(name) for name in modules() if name not in FACE}
    assert rooms == LOWER.keys()


def test_imports_stand_at_the_top(graph: list[Import]) -> None:
    """Imports inside of functions hide arrows. The command line needs them: ``--help`` imports nothing heavy."""
    late = {edge.importer for edge in graph if edge.function and not edge.importer.startswith("retinanet.cli")}
    assert late <= LATE.keys()
