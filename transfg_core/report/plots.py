"""Curves of several runs as one SVG picture; the same runs give the same bytes.

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


class Curve(NamedTuple):
    """One run: training loss and test accuracy in percent over updates."""

    label: str
    loss: Points
    accuracy: Points


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


def draw_curves(curves: Sequence[Curve], twins: tuple[int, int] | None) -> str:
    """An <svg> element: loss and accuracy side by side, the difference of `twins` below.

    Args:
        twins: positions of two runs of one configuration on different backends, or None.
    """
    matplotlib = load_optional("matplotlib")
    figures = load_optional("matplotlib.figure")
    labels = [fonts.readable(curve.label) for curve in curves]
    with matplotlib.rc_context(STYLE | {"font.family": fonts.families(labels)}):
        rows = 1 if twins is None else 2
        figure = figures.Figure(figsize=(10, 0.5 + 3.4 * rows), layout="constrained")
        figure.get_layout_engine().set(h_pad=0.08, w_pad=0.08, hspace=0.08)
        grid = figure.add_gridspec(rows, 2, height_ratios=[3, 2][:rows])
        panels = [figure.add_subplot(grid[0, column]) for column in range(2)]
        for panel, kind, title in zip(
            panels, ("loss", "accuracy"), ("training loss", "test accuracy (%)"), strict=True
        ):
            for number, (curve, label) in enumerate(zip(curves, labels, strict=True)):
                _plot(panel, getattr(curve, kind), label, number)
            panel.set_title(title)
            panel.set_xlabel("update")
        if twins is not None:
            _plot_difference(figure.add_subplot(grid[1, :]), *(curves[k] for k in twins))
        handles, labels = panels[0].get_legend_handles_labels()
        columns = min(3, len(curves))
        figure.legend(
            handles, labels, loc="outside upper left", ncols=columns, fontsize=10, handlelength=4
        )
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _plot(panel: Any, points: Points, label: str, number: int) -> None:
    style = LINES[number % len(LINES)]
    marker = {"marker": "o", "markersize": 2.2 * style["linewidth"]} if len(points) < 20 else {}
    colour = COLOURS[number % len(COLOURS)]
    panel.plot(list(points), list(points.values()), color=colour, label=label, **style, **marker)


def _plot_difference(panel: Any, left: Curve, right: Curve) -> None:
    """Absolute difference of the training losses; the log scale leaves out equal losses."""
    common = [update for update in left.loss if update in right.loss]
    gaps = {update: abs(left.loss[update] - right.loss[update]) for update in common}
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
