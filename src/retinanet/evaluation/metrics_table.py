"""COCO's twelve numbers as a small HTML table, for notebooks."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from retinanet.common.coco_numbers import METRICS


def metrics_html(metrics: Mapping[str, float], heading: str = "") -> str:
    """A table with a row for the names and one for the numbers; a dash where there is no ground truth."""
    names = [name for name in METRICS if name in metrics]
    head = "".join(f'<th title="{escape(METRICS[name])}">{name}</th>' for name in names)
    row = "".join(f"<td>{'–' if metrics[name] < 0 else f'{metrics[name]:.3f}'}</td>" for name in names)
    title = f"<p>{escape(heading)}</p>" if heading else ""
    return f"{title}<table><tr>{head}</tr><tr>{row}</tr></table>"
