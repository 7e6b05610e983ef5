"""The results of a table: means and spreads over the seeds, as CSV, as Markdown, and summed up in words."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from retinanet.evaluation.coco_metrics import NAMES
from retinanet.paper.experiments import Cell, Experiment
from retinanet.paper.grid import Result


@dataclass(frozen=True)
class Row:
    """A cell with the results of its runs."""

    cell: Cell
    results: Sequence[tuple[int, Result]]
    """Seed and result."""

    @property
    def label(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.cell.values.items() if value != "")

    def values(self, name: str) -> list[float]:
        """A metric of the runs that are done, in percent ("ms" in milliseconds), without COCO's -1 for no truth."""
        if name == "ms":
            return [r["ms"] for _, r in self.results if "ms" in r]
        values = [r["metrics"][name] for _, r in self.results if r["state"] == "done"]
        return [100 * value for value in values if value >= 0]

    def mean(self, name: str = "AP") -> float:
        """The mean over the seeds; NaN if no run has this metric."""
        values = self.values(name)
        return statistics.fmean(values) if values else math.nan

    def spread(self, name: str = "AP") -> float:
        """Standard deviation over the seeds; NaN for fewer than two runs."""
        values = self.values(name)
        return statistics.stdev(values) if len(values) > 1 else math.nan

    @property
    def failed(self) -> list[str]:
        """The states of the runs that are not done: "diverged", "failed"."""
        return [r["state"] for _, r in self.results if r["state"] != "done"]

    def shown(self, name: str = "AP") -> str:
        """The text of a table's cell: "31.2 ± 0.4 (3)", with the number of failed runs."""
        values = self.values(name)
        parts = []
        if values:
            spread = f" ± {self.spread(name):.1f}" if len(values) > 1 else ""
            parts.append(f"{self.mean(name):.1f}{spread}" + (f" ({len(values)})" if len(values) > 1 else ""))
        parts += [f"{self.failed.count(state)} {state}" for state in sorted(set(self.failed))]
        return ", ".join(parts) or "–"


def table(experiment: Experiment, rows: Sequence[Row]) -> list[list[str]]:
    """The header and the lines of a table: what differs between the cells, the paper's numbers, ours."""
    varied = list(rows[0].cell.values)
    cited = [name for name in experiment.measured if any(name in row.cell.paper for row in rows)]
    lines = [[*varied, *(f"paper {name}" for name in cited), *experiment.measured]]
    for row in rows:
        texts = [str(row.cell.values[name]) for name in varied] + [str(row.cell.paper.get(name, "")) for name in cited]
        lines.append([*texts, *(row.shown(name) for name in experiment.measured)])
    return lines


def as_csv(experiment: Experiment, rows: Sequence[Row]) -> str:
    """A line for each run."""
    text = io.StringIO()
    varied = list(rows[0].cell.values)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*varied, "paper_AP", "seed", "state", *NAMES, "steps", "seconds", *(["ms"] * experiment.timed)])
    for row in rows:
        for seed, result in row.results:
            metrics = result.get("metrics", {})
            writer.writerow(
                [
                    *(row.cell.values[name] for name in varied),
                    row.cell.paper.get("AP", ""),
                    seed,
                    result["state"],
                    *(f"{metrics[n]:.4f}" if n in metrics else "" for n in NAMES),
                    result.get("steps", ""),
                    f"{result['seconds']:.0f}" if "seconds" in result else "",
                    *([f"{result['ms']:.1f}" if "ms" in result else ""] * experiment.timed),
                ]
            )
    return text.getvalue()


def markdown(experiment: Experiment, rows: Sequence[Row], about: Mapping[str, str], notes: Sequence[str]) -> str:
    """The table with the paper's column beside ours, between the lines ``about`` and ``notes``."""
    header, *body = ("| " + " | ".join(line) + " |" for line in table(experiment, rows))
    seeds = max(len(row.results) for row in rows)
    lines = [
        f"# {experiment.title} ({experiment.name})",
        "",
        *(f"- {name}: {text}" for name, text in about.items()),
        "",
        header,
        "|" + "---|" * (header.count("|") - 1),
        *body,
        "",
        f"AP in percent; mean ± standard deviation over the runs (in brackets), {seeds} seeds at most.",
        "",
        *(f"- {line}" for line in notes),
    ]
    return "\n".join(lines) + "\n"


def summary(experiment: Experiment, rows: Sequence[Row]) -> list[str]:
    """What the table shows, in words, and how certain it is."""
    measured = [row for row in rows if row.values("AP")]
    lines = [
        f"{row.label}: {row.failed.count(state)} of {len(row.results)} runs {state}"
        for row in rows
        for state in sorted(set(row.failed))
    ]
    if len(measured) < 2:
        return lines
    ranked = sorted(measured, key=lambda row: -row.mean())
    best, last = ranked[0], ranked[-1]
    lines.append(f"best: {best.label} with {best.shown()}; lowest: {last.label} with {last.shown()}")
    if all(len(row.values("AP")) < 2 for row in measured):
        return [*lines, "there is one run of each cell, so these differences may be chance: use --seeds 3"]
    close = [row for row in ranked[1:] if not _apart(best, row)]
    if close:
        names = "; ".join(f"{row.label} ({row.shown()})" for row in close)
        lines.append(f"not clearly worse than the best (within two standard errors): {names}")
    cited = [row for row in measured if isinstance(row.cell.paper.get("AP"), int | float)]
    pairs = [(a, b) for i, a in enumerate(cited) for b in cited[i + 1 :] if a.cell.paper["AP"] != b.cell.paper["AP"]]
    clear = [(a, b) for a, b in pairs if _apart(a, b)]
    if clear:
        held = sum((a.mean() > b.mean()) == (float(a.cell.paper["AP"]) > float(b.cell.paper["AP"])) for a, b in clear)
        lines.append(f"clear differences in {len(clear)} of {len(pairs)} pairs of cells, {held} in the paper's order")
    return lines


def _apart(a: Row, b: Row) -> bool:
    """Whether the means differ by more than two standard errors of their difference."""
    if len(a.values("AP")) < 2 or len(b.values("AP")) < 2:
        return False
    error = math.sqrt(a.spread() ** 2 / len(a.values("AP")) + b.spread() ** 2 / len(b.values("AP")))
    return abs(a.mean() - b.mean()) > 2 * error
