"""The figures of a parity report, each a self-contained SVG picture.

The same rows give the same bytes. matplotlib is imported only when a picture is drawn. Everything
that a colour shows, a mark or a number shows as well.
"""

import io
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from parity.comparison.sketch import Array
from parity.comparison.verdict import Row
from parity.report.style import COLOURS, STYLE, load_optional, power_of_ten

DIFFERENT, UNDECIDED = "#d55e00", "#e69f00"  # Okabe and Ito 2008
LESS_PRECISE = "#cc79a7"
MARKS = {
    "different": ("X", DIFFERENT),
    "undecided": ("D", UNDECIDED),
    "less precise": ("P", LESS_PRECISE),
}
CELL_MARKS = {"different": " X", "undecided": " ?", "less precise": " ~"}
FLOOR, BOUND = "#e2e2e2", "#222222"
LONGEST = 40  # characters of a label
DENSE = 5000  # points; more points are drawn as pixels


class Profile(NamedTuple):
    """Rows of one case in data order, and the names of the pair."""

    title: str
    rows: Sequence[Row]
    candidate: str
    baseline: str


class Heat(NamedTuple):
    """The largest ratio of one pair by case and stage."""

    title: str
    cases: Sequence[str]
    stages: Sequence[str]
    ratios: Array  # (cases, stages); NaN: not compared; below zero: the ratio has no meaning
    verdicts: Sequence[Sequence[str]]


class Scores(NamedTuple):
    """Part scores of one case; both arrays have one shape and order."""

    title: str
    candidate: str
    baseline: str
    found: Array  # of the candidate
    expected: Array  # of the baseline


def plain(text: str) -> str:
    """Text in characters of matplotlib's font, cut so that it leaves room for the picture."""
    label = "".join(c if c.isprintable() else " " for c in text)
    label = label.encode("ascii", "backslashreplace").decode()
    return label if len(label) <= LONGEST else label[: LONGEST - 3] + "..."


def draw(height: float, fill: Callable[[Any], None]) -> bytes:
    """An SVG picture; `fill` adds the panels to its figure."""
    matplotlib = load_optional("matplotlib")
    figures = load_optional("matplotlib.figure")
    with matplotlib.rc_context(STYLE):
        figure = figures.Figure(figsize=(10, height), layout="constrained", dpi=150)
        figure.get_layout_engine().set(h_pad=0.08, w_pad=0.06, hspace=0.04)
        fill(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def depth_figure(profiles: Sequence[Profile]) -> bytes:
    """Error by tap, one panel per case: both backends, the noise floor and the bound."""

    def fill(figure: Any) -> None:
        panels = figure.subplots(len(profiles), 1, squeeze=False)[:, 0]
        for panel, profile in zip(panels, profiles, strict=True):
            _plot_depth(panel, profile)
        handles, labels = _all_handles(panels)
        figure.legend(handles, labels, loc="outside upper left", ncols=len(labels), fontsize=8)

    return draw(0.4 + 3.5 * len(profiles), fill)


def _plot_depth(panel: Any, profile: Profile) -> None:
    rows = profile.rows
    place = np.arange(len(rows))
    error, baseline_error, noise_floor, bound = (
        np.array([getattr(row, name) for row in rows], np.float64)
        for name in ("error", "baseline_error", "noise_floor", "bound")
    )
    low, high = _limits(error, baseline_error, noise_floor, bound)
    panel.set_yscale("log")
    panel.set_ylim(low, high)
    panel.yaxis.set_major_formatter(power_of_ten)
    panel.yaxis.set_minor_formatter("")
    grey = {"step": "mid", "color": FLOOR, "lw": 0, "label": "noise floor"}
    top = _within(noise_floor, low, high)
    panel.fill_between(place, low, top, where=noise_floor > 0, **grey)
    dashed = {"where": "mid", "color": BOUND, "lw": 1, "ls": "--", "label": "bound"}
    panel.step(place, np.where(bound > 0, _within(bound, low, high), np.nan), **dashed)
    lines = [(error, profile.candidate, COLOURS[2], "^")]
    if baseline_error.any():
        lines.insert(0, (baseline_error, profile.baseline, COLOURS[0], "o"))
    for values, name, colour, mark in lines:
        plotted = np.where(np.isfinite(values) & (values > 0), values, np.nan)
        panel.plot(place, plotted, color=colour, marker=mark, ms=3.5, lw=0.9, label=plain(name))
    equal = place[error == 0]
    if equal.size:
        style = {"marker": "v", "ls": "", "mfc": "none", "mec": COLOURS[2], "ms": 4}
        panel.plot(equal, np.full(equal.size, 1.5 * low), label="equal", **style)
    for verdict, (mark, colour) in MARKS.items():
        bad = np.array([i for i, row in enumerate(rows) if row.verdict == verdict], int)
        if bad.size:
            style = {"marker": mark, "ls": "", "color": colour, "ms": 8, "mec": "white"}
            panel.plot(bad, _within(error[bad], low, high), label=verdict, zorder=5, **style)
    panel.set_xlim(-0.7, len(rows) - 0.3)
    panel.set_xticks(place, [plain(row.tap) for row in rows], rotation=90, fontsize=6)
    panel.grid(visible=False, axis="x")
    panel.set_ylabel("relative L2 error")
    panel.set_title(plain(profile.title))


def _limits(*arrays: Array) -> tuple[float, float]:
    """Limits of a log axis with room for every positive finite number."""
    numbers = np.concatenate(arrays)
    numbers = numbers[np.isfinite(numbers) & (numbers > 0)]
    if not numbers.size:
        return 1e-9, 1e-5
    low, high = max(float(numbers.min()) / 4, 1e-300), min(float(numbers.max()) * 4, 1e300)
    return low, high


def _within(values: Array, low: float, high: float) -> Array:
    """Values clipped to the picture; NaN and infinity go to its upper edge."""
    return np.clip(np.nan_to_num(values, nan=high, posinf=high), low * 1.5, high / 1.5)


def _all_handles(panels: Sequence[Any]) -> tuple[list[Any], list[str]]:
    """Handles and labels of the legends of all panels, each label once."""
    by_label: dict[str, Any] = {}
    for panel in panels:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            by_label.setdefault(label, handle)
    return list(by_label.values()), list(by_label)


def heat_figure(heats: Sequence[Heat]) -> bytes:
    """Ratio by case and stage, one panel per pair and precision; all panels share the stages."""
    sizes = [len(heat.cases) for heat in heats]
    labels = [plain(stage) for stage in heats[-1].stages]

    def fill(figure: Any) -> None:
        ratios = [size + 1 for size in sizes]
        panels = figure.subplots(len(heats), 1, squeeze=False, height_ratios=ratios)[:, 0]
        for panel, heat in zip(panels, heats, strict=True):
            _plot_heat(panel, heat)
            panel.set_xticklabels([])
        panels[-1].set_xticklabels(
            labels, rotation=45, ha="right", rotation_mode="anchor", fontsize=8
        )

    label_height = 0.4 + 0.055 * max(map(len, labels))  # labels are slanted
    return draw(label_height + 0.27 * sum(sizes) + 0.45 * len(heats), fill)


def _plot_heat(panel: Any, heat: Heat) -> None:
    colours = load_optional("matplotlib.colors")
    scale = colours.LinearSegmentedColormap.from_list("ratio", ["#ffffff", "#9ecae8"])
    shade = np.where(np.isfinite(heat.ratios), np.clip(heat.ratios, 0, 1), np.nan)
    panel.pcolormesh(shade, cmap=scale, vmin=0, vmax=1, edgecolors="white", linewidth=0.6)
    panel.invert_yaxis()
    rectangle = load_optional("matplotlib.patches").Rectangle
    style = {"ha": "center", "va": "center", "fontsize": 7, "color": "black"}
    for (row, column), value in np.ndenumerate(heat.ratios):
        if np.isnan(value):
            continue
        verdict, text = heat.verdicts[row][column], _ratio_text(float(value))
        if verdict in MARKS:
            colour = MARKS[verdict][1]
            panel.add_patch(rectangle((column, row), 1, 1, facecolor=colour, edgecolor="white"))
        text += CELL_MARKS.get(verdict, "")
        weight = "bold" if verdict in MARKS else "normal"
        panel.text(column + 0.5, row + 0.5, text, weight=weight, **style)
    panel.set_yticks(
        np.arange(len(heat.cases)) + 0.5, [plain(case) for case in heat.cases], fontsize=8
    )
    panel.set_xticks(np.arange(len(heat.stages)) + 0.5)
    panel.tick_params(length=0)
    panel.grid(visible=False)
    panel.spines[:].set_visible(False)
    panel.set_title(plain(heat.title))


def _ratio_text(value: float) -> str:
    if value < 0:
        return "-"
    if value == 0:
        return "0"
    if np.isinf(value):
        return "inf"
    if value >= 10:
        return f"{value:.0e}".replace("e+", "e").replace("e0", "e")
    return f"{value:.2f}" if value >= 0.005 else "<.01"


def score_figure(cases: Sequence[Scores]) -> bytes:
    """Part scores of the candidate over those of the baseline, and their difference."""

    def fill(figure: Any) -> None:
        panels = figure.subplots(len(cases), 2, squeeze=False)
        for (left, right), case in zip(panels, cases, strict=True):
            expected, found = (np.ravel(x).astype(np.float64) for x in (case.expected, case.found))
            style = {"s": 5, "color": COLOURS[0], "lw": 0, "rasterized": expected.size > DENSE}
            left.axline((float(expected.mean()),) * 2, slope=1, color="#888888", lw=0.8)
            left.scatter(expected, found, **style)
            left.set_ylabel(plain(f"score of {case.candidate}"))
            left.set_title(plain(case.title))
            right.axhline(0, color="#888888", lw=0.8)
            right.scatter(expected, found - expected, **style)
            right.set_ylabel("difference")
            right.ticklabel_format(axis="y", scilimits=(0, 0))
            for panel in (left, right):
                panel.set_xlabel(plain(f"score of {case.baseline}"))

    return draw(0.3 + 3.0 * len(cases), fill)
