"""Curves of runs as one SVG picture; the same curves give the same bytes.

matplotlib is imported only when a picture is drawn.
"""

import importlib
import io
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from transfg_core import fonts
from transfg_core.errors import UserError
from transfg_core.machine import install_command

Points = dict[int, float]  # update -> value
Band = dict[int, "Point"]  # update -> mean and range
COLUMNS = 2  # of a legend
LEGEND, PANEL, GAPS = 0.22, 3.2, 2.4  # heights of a legend's line and of the panels, in inches

# Colours that differ under every common colour blindness (Okabe and Ito 2008).
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
# Curves of twins coincide; a thin dashed line over a broad pale one shows both.
LINES: tuple[dict[str, Any], ...] = (
    {"linestyle": "-", "linewidth": 3.2, "alpha": 0.45},
    {"linestyle": (0, (4, 2)), "linewidth": 1.4},
    {"linestyle": (0, (1, 1.4)), "linewidth": 1.8},
    {"linestyle": (0, (6, 2, 1, 2)), "linewidth": 1.4},
)
STYLE: dict[str, Any] = {
    "svg.hashsalt": "transfg",  # without this, the ids differ in every picture
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "text.parse_math": False,  # names may contain dollar signs
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
    "text.color": "#222222",
    "legend.frameon": False,
}


class Point(NamedTuple):
    """Mean and range over seeds."""

    mean: float
    low: float
    high: float


class Curve(NamedTuple):
    """One configuration on one backend over updates: training loss, and accuracy in percent."""

    label: str
    loss: Band
    accuracy: Band
    colour: int  # twins have one colour ...
    style: int  # ... and different lines


def load_optional(name: str) -> Any:
    """Import a module of the `report` extra.

    Raises:
        UserError: the module is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"a report needs {name.partition('.')[0]}, which cannot be imported ({error}); "
            f"run: {install_command('report')}"
        ) from error


def draw_curves(rows: Sequence[Sequence[Curve]], accuracy: str, gaps: Points | None = None) -> str:
    """An <svg> element: a row of loss and accuracy for each group of curves.

    Args:
        rows: groups of curves, each in panels and a legend of its own.
        accuracy: what the accuracy is measured on, such as "test".
        gaps: absolute differences of the training losses of two runs, drawn below; None: none.
    """
    matplotlib = load_optional("matplotlib")
    figures = load_optional("matplotlib.figure")
    names = [fonts.readable(curve.label) for row in rows for curve in row]
    with matplotlib.rc_context(STYLE | {"font.family": fonts.families(names)}):
        heights = [LEGEND * -(-len(row) // COLUMNS) + PANEL for row in rows]
        heights += [GAPS] if gaps is not None else []
        figure = figures.Figure(figsize=(10, sum(heights)), layout="constrained")
        parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
        panels = [_draw_row(part, row, accuracy) for part, row in zip(parts, rows, strict=False)]
        for loss, measured in panels[1:]:  # one scale, so that rows can be compared
            loss.sharey(panels[0][0])
            measured.sharey(panels[0][1])
        if gaps is not None:
            _draw_gaps(parts[-1].subplots(), gaps)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _draw_row(part: Any, curves: Sequence[Curve], accuracy: str) -> tuple[Any, Any]:
    """The two panels of a row of curves, with their legend."""
    loss, measured = part.subplots(1, 2)
    for panel, kind, title in (
        (loss, "loss", "training loss"),
        (measured, "accuracy", f"{accuracy} accuracy (%)"),
    ):
        for curve in curves:
            _plot(panel, getattr(curve, kind), curve)
        panel.set_title(title)
        panel.set_xlabel("update")
    handles, labels = loss.get_legend_handles_labels()
    part.legend(
        handles, labels, loc="outside upper left", ncols=COLUMNS, fontsize=10, handlelength=4
    )
    return loss, measured


def _plot(panel: Any, band: Band, curve: Curve) -> None:
    """The mean, and the range over seeds where there is one."""
    style = LINES[curve.style % len(LINES)]
    marker = {"marker": "o", "markersize": 2.2 * style["linewidth"]} if len(band) < 20 else {}
    colour = COLOURS[curve.colour % len(COLOURS)]
    updates, label = list(band), fonts.readable(curve.label)
    means = [point.mean for point in band.values()]
    panel.plot(updates, means, color=colour, label=label, **style, **marker)
    if any(point.low < point.high for point in band.values()):
        low, high = ([getattr(point, side) for point in band.values()] for side in ("low", "high"))
        panel.fill_between(updates, low, high, color=colour, alpha=0.15, linewidth=0)


def _draw_gaps(panel: Any, gaps: Points) -> None:
    """Absolute difference of the training losses; the log scale leaves out equal losses."""
    positive = {update: gap for update, gap in gaps.items() if gap > 0}
    panel.plot(list(positive), list(positive.values()), color="#555555", marker=".", linewidth=0.8)
    if positive:
        panel.set_yscale("log")
        panel.yaxis.set_major_formatter(power_of_ten)
    equal = len(gaps) - len(positive)
    panel.set_title(
        f"absolute difference of the training losses (exactly 0 at {equal} of {len(gaps)} updates)"
    )
    panel.set_xlabel("update")


def power_of_ten(value: float, _: int = 0) -> str:
    """A power of ten in Unicode characters, because formulas are switched off."""
    return "10" + f"{math.log10(value):.0f}".translate(SUPERSCRIPT)
