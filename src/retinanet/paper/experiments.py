"""The tables of the paper: the settings of each cell, and the paper's own numbers.

AP of the paper are in percent on COCO: tables 1a to 1d and 3 on minival with ResNet-50 (1d: ResNet-101) at 600 pixels,
tables 1e and 2 on test-dev.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from retinanet.config.settings import Settings

CE = {"loss.kind": "focal", "loss.gamma": 0.0, "loss.alpha": None}
FL = {"loss.kind": "focal", "loss.gamma": 2.0, "loss.alpha": 0.25}
SIX = ("AP", "AP50", "AP75", "APs", "APm", "APl")


@dataclass(frozen=True)
class Cell:
    """One line of a table: runs that differ only in their seeds."""

    values: Mapping[str, Any]
    """The varied settings as the table shows them: {"alpha": 0.75}."""
    settings: Mapping[str, Any]
    """The same as dotted settings, which replace those of the recipe."""
    paper: Mapping[str, float | str] = field(default_factory=dict)
    """The paper's numbers by name, AP in percent and time in milliseconds; or a word such as "diverged"."""


@dataclass(frozen=True)
class Experiment:
    name: str
    title: str
    recipe: str
    """The paper's own recipe, for COCO."""
    cells: Callable[[Settings], list[Cell]]
    """Makes the cells from the recipe's settings."""
    metrics: tuple[str, ...] = ("AP", "AP50", "AP75")
    timed: bool = False
    """Whether the table has a column for the time per image."""

    @property
    def measured(self) -> tuple[str, ...]:
        """The names of the columns with our own numbers."""
        return (*self.metrics, "ms") if self.timed else self.metrics


def _alpha(settings: Settings) -> list[Cell]:
    paper = {0.1: 0.0, 0.25: 10.8, 0.5: 30.2, 0.75: 31.1, 0.9: 30.8, 0.99: 28.7, 0.999: 25.1}
    return [Cell({"alpha": a}, CE | {"loss.alpha": a}, {"AP": ap}) for a, ap in paper.items()]


def _gamma(settings: Settings) -> list[Cell]:
    paper = {
        (0.0, 0.75): 31.1,
        (0.1, 0.75): 31.4,
        (0.2, 0.75): 31.9,
        (0.5, 0.5): 32.9,
        (1.0, 0.25): 33.7,
        (2.0, 0.25): 34.0,
        (5.0, 0.25): 32.2,
    }
    return [
        Cell({"gamma": g, "alpha": a}, FL | {"loss.gamma": g, "loss.alpha": a}, {"AP": ap})
        for (g, a), ap in paper.items()
    ]


def _anchors(settings: Settings) -> list[Cell]:
    paper = {(1, 1): 30.3, (2, 1): 31.9, (3, 1): 31.8, (1, 3): 32.4, (2, 3): 34.2, (3, 3): 34.0, (4, 3): 33.8}
    return [
        Cell(
            {"scales": s, "ratios": r},
            {
                "model.anchors.scales": [round(2 ** (i / s), 6) for i in range(s)],
                "model.anchors.ratios": [0.5, 1.0, 2.0] if r == 3 else [1.0],
            },
            {"AP": ap},
        )
        for (s, r), ap in paper.items()
    ]


def _ohem(settings: Settings) -> list[Cell]:
    rows: list[tuple[int, float, float | None, float]] = [(128, 0.7, None, 31.1), (256, 0.7, None, 31.8)]
    rows += [(512, 0.7, None, 30.6)]
    rows += [(128, 0.5, None, 32.8), (256, 0.5, None, 31.0), (512, 0.5, None, 27.6)]
    rows += [(128, 0.5, 3.0, 31.1), (256, 0.5, 3.0, 28.3), (512, 0.5, 3.0, 24.0)]
    cells = [
        Cell(
            {"method": "OHEM 1:3" if negatives else "OHEM", "batch": batch, "nms": nms},
            CE | {"loss.ohem.batch": batch, "loss.ohem.nms": nms, "loss.ohem.negatives": negatives},
            {"AP": ap},
        )
        for batch, nms, negatives, ap in rows
    ]
    return [*cells, Cell({"method": "FL", "batch": "all", "nms": "none"}, FL, {"AP": 36.0})]


DEEPER = {"resnet18": "resnet34", "resnet34": "resnet50", "resnet50": "resnet101"}


def _depth_and_scale(settings: Settings) -> list[Cell]:
    """Two depths at five scales. The recipe's backbone and size stand for ResNet-50 and 800 pixels."""
    paper = {
        (50, 400): (30.5, 64),
        (50, 500): (32.5, 72),
        (50, 600): (34.3, 98),
        (50, 700): (35.1, 121),
        (50, 800): (35.7, 153),
        (101, 400): (31.9, 81),
        (101, 500): (34.4, 90),
        (101, 600): (36.0, 122),
        (101, 700): (37.1, 154),
        (101, 800): (37.8, 198),
    }
    backbone, images = settings.model.backbone, settings.model.preprocessing
    cells = []
    for (depth, scale), (ap, ms) in paper.items():
        size = max(32, round(images.size * scale / 800))
        changed: dict[str, Any] = {
            "model.preprocessing.size": size,
            "model.preprocessing.longer": max(size, round(images.longer * scale / 800)),
        }
        layers = backbone.options.get("layers")
        name = backbone.name if layers is None else f"{sum(layers)} blocks"
        if depth == 101 and layers is not None:
            changed["model.backbone.options.layers"] = [2 * n for n in layers]
            name = f"{2 * sum(layers)} blocks"
        elif depth == 101:
            name = changed["model.backbone.name"] = DEEPER.get(backbone.name, "resnet101")
        cells.append(Cell({"backbone": name, "size": size}, changed, {"AP": ap, "ms": ms}))
    return cells


def _best(settings: Settings) -> list[Cell]:
    paper = {
        "resnet101": (39.1, 59.1, 42.3, 21.8, 42.7, 50.2),
        "resnext101_32x8d": (40.8, 61.1, 44.1, 24.1, 44.2, 51.2),
    }
    return [
        Cell({"backbone": name}, {"model.backbone.name": name, "model.backbone.options": {}}, dict(zip(SIX, figures)))
        for name, figures in paper.items()
    ]


def _star_settings(gamma: float, beta: float) -> dict[str, Any]:
    return FL | {"loss.kind": "focal_star", "loss.gamma": gamma, "loss.star_beta": beta}


def _star(settings: Settings) -> list[Cell]:
    return [
        Cell({"loss": "CE", "gamma": "", "beta": ""}, CE | {"loss.alpha": 0.75}, {"AP": 31.1}),
        Cell({"loss": "FL", "gamma": 2.0, "beta": ""}, FL, {"AP": 34.0}),
        Cell({"loss": "FL*", "gamma": 2.0, "beta": 1.0}, _star_settings(2.0, 1.0), {"AP": 33.8}),
        Cell({"loss": "FL*", "gamma": 4.0, "beta": 0.0}, _star_settings(4.0, 0.0), {"AP": 33.9}),
    ]


def _star_sweep(settings: Settings) -> list[Cell]:
    known = {(2.0, 1.0): {"AP": 33.8}, (4.0, 0.0): {"AP": 33.9}}
    pairs = [(gamma, beta) for gamma in (1.0, 2.0, 3.0, 4.0) for beta in (-1.0, 0.0, 1.0, 2.0)]
    return [Cell({"gamma": g, "beta": b}, _star_settings(g, b), known.get((g, b), {})) for g, b in pairs]


def _prior(settings: Settings) -> list[Cell]:
    """Without the prior the bias is 0, as in any other layer, and every anchor starts with probability 0.5."""
    paper: dict[tuple[str, bool], float | str] = {("CE", False): "diverged", ("CE", True): 30.2, ("FL", True): 34.0}
    kinds: dict[str, dict[str, Any]] = {"CE": CE, "FL": FL}
    return [
        Cell(
            {"loss": loss, "prior": settings.model.head.prior if prior else "none"},
            fixed if prior else fixed | {"model.head.prior": 0.5},
            {"AP": paper[loss, prior]} if (loss, prior) in paper else {},
        )
        for loss, fixed in kinds.items()
        for prior in (False, True)
    ]


def _hinge(settings: Settings) -> list[Cell]:
    hinge = FL | {"loss.kind": "hinge"}
    cells = [Cell({"loss": "hinge", "margin": m}, hinge | {"loss.margin": m}, {"AP": "unstable"}) for m in (0.5, 0.8)]
    return [*cells, Cell({"loss": "FL", "margin": ""}, FL, {"AP": 34.0})]


ABLATION = "paper-ablation-r50-600"

EXPERIMENTS = {
    e.name: e
    for e in (
        Experiment("prior", "Cross entropy and focal loss with and without the prior", ABLATION, _prior),
        Experiment("hinge", "Hinge loss on p_t", ABLATION, _hinge),
        Experiment("table-1a", "Balanced cross entropy by alpha", ABLATION, _alpha),
        Experiment("table-1b", "Focal loss by gamma, with the best alpha", ABLATION, _gamma),
        Experiment("table-1c", "Anchor scales and aspect ratios", ABLATION, _anchors),
        Experiment("table-1d", "Online hard example mining against focal loss", "paper-ablation-r101-600", _ohem),
        Experiment(
            "table-1e", "Accuracy and speed by depth and image size", "paper-r50-1x", _depth_and_scale, timed=True
        ),
        Experiment("table-2", "The best models", "paper-r101-jitter", _best, SIX),
        Experiment("table-3", "FL* against FL and CE", ABLATION, _star),
        Experiment("figure-7", "FL* by gamma and beta", ABLATION, _star_sweep),
    )
}
