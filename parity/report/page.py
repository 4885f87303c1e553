"""report.html: one page that shows what a parity run compared, the differences, and their causes.

The page needs no other file and no network, and the same rows give the same page. Pictures are SVG
inside `<img>`, so that a browser can save each as a separate file for a paper.
"""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from parity.comparison.chance import FLOOR_FACTOR
from parity.comparison.noise import ROUNDOFF_FACTOR
from parity.comparison.ties import whole
from parity.comparison.trace import read_trace
from parity.comparison.verdict import OneSided, Row, worst
from parity.diagnose.finding import Finding
from parity.errors import ParityError
from parity.report.plots import Heat, Profile, Scores, depth_figure, heat_figure, score_figure
from parity.report.style import load_optional
from parity.report.summary import Remarks, badness, grouped, ratio, sentence, shown
from parity.report.tables import (
    bad_table,
    differences_table,
    number,
    one_sided_table,
    pairs_table,
    producers_table,
    ratio_text,
    stages_table,
    ties_table,
    vacuous_table,
    zeros_table,
)

TEMPLATES = Path(__file__).parent / "templates"
# Pass -> sets of stages in data order; the first set that was compared is shown
PASSES = {
    "forward": (
        ("forward", "selection", "losses"),
        ("isolated forward", "isolated selection", "isolated losses"),
    ),
    "backward": (("backward",), ("isolated backward",), ("gradients",)),
}
MOST_CASES = 2
SCORES = "selection/part_scores"


class Figure(NamedTuple):
    """A picture in base64, with title, caption and a text for readers who cannot see it."""

    title: str
    caption: str
    alt: str
    svg: str


def page_text(
    rows: Sequence[Row],
    environment: Mapping[str, Any],
    findings: Sequence[Finding] = (),
    scores: Sequence[tuple[Path, Path]] = (),
    one_sided: OneSided | None = None,
    remarks: Remarks | None = None,
) -> str:
    """The page; the arguments are those of `write_reports`."""
    jinja2 = load_optional("jinja2")
    engine = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: shown(value) if type(value) is str else value,
    )
    figures = can_draw()
    main_pair = max(grouped(rows, "pair").values(), key=len, default=[])
    text: str = engine.get_template("report.html.j2").render(
        verdict=worst([row.verdict for row in rows]),
        sentence=sentence(rows),
        remarks=remarks or Remarks(),
        rule={"floor": FLOOR_FACTOR, "roundoff": ROUNDOFF_FACTOR},
        compared=[pairs_table(rows), producers_table(environment)],
        depth=depth_figures(main_pair) if figures else [],
        heat=heat_map(rows) if figures else None,
        stages=stages_table(rows),
        scores=score_plot(scores) if figures else None,
        ties=ties_table(rows),
        bad=bad_table(rows),
        findings=findings,
        one_sided=one_sided_table(one_sided or OneSided()),
        differences=differences_table(rows),
        zeros=zeros_table(rows),
        vacuous=vacuous_table(rows),
    )
    return text


def can_draw() -> bool:
    """Whether matplotlib is installed; without it the page has tables alone."""
    try:
        load_optional("matplotlib")
    except ParityError:
        return False
    return True


def depth_figures(rows: Sequence[Row]) -> list[Figure]:
    """Error by depth, for each precision and pass, of the cases with the most taps in that pass."""
    figures = []
    for (precision,), members in grouped(rows, "precision").items():
        compared = {row.stage for row in members}
        for name, stage_sets in PASSES.items():
            stages: Sequence[str] = next((s for s in stage_sets if compared.intersection(s)), ())
            by_case = grouped((row for row in members if row.stage in stages), "case")
            deepest = sorted(by_case, key=lambda case: -len(by_case[case]))[:MOST_CASES]
            profiles = [profile(case, by_case[(case,)]) for (case,) in deepest]
            if profiles:
                isolated = ", isolated operations" if stages[0].startswith("isolated") else ""
                figures.append(depth_of(profiles, name + " pass" + isolated, precision))
    return figures


def profile(case: str, rows: Sequence[Row]) -> Profile:
    """One panel: every tap once, in order of first appearance; of equal names, the worst."""
    candidate, _, baseline = rows[0].pair.partition(" : ")
    taps = [max(members, key=badness) for members in grouped(rows, "stage", "tap").values()]
    return Profile(f"case {case}" if case else "all taps", taps, candidate, baseline)


def depth_of(profiles: Sequence[Profile], name: str, precision: str) -> Figure:
    """The figure of error by depth, with its caption."""
    baseline, candidate = profiles[0].baseline, profiles[0].candidate
    has_reference = any(row.baseline_error for panel in profiles for row in panel.rows)
    compared_to = f"the float64 reference ({baseline})" if has_reference else baseline
    caption = (
        f"Relative L2 error of every tap of the {name}, in {precision}, to {compared_to}, in the "
        "order of the forward pass. Grey: the noise floor, the largest error among recordings of "
        "the same function in another order or from weights moved by one unit in the last place. "
        "Dashed: the bound."
    )
    sentences = []
    for panel in profiles:
        worst_row = max(panel.rows, key=badness)
        failed = sum(row.verdict not in ("equivalent", "vacuous") for row in panel.rows)
        sentences.append(
            f"{panel.title}: {len(panel.rows)} taps, {failed} not equivalent. The worst is "
            f"{worst_row.tap}: the error of {candidate} is {number(worst_row.error)}, the bound "
            f"{number(worst_row.bound)} and the ratio {ratio_text(worst_row)}."
        )
    title = f"Error by depth: {name}, {precision}"
    alt = f"Line plots over taps, log scale. {' '.join(sentences)}"
    return Figure(title, caption, alt, encoded(depth_figure(profiles)))


def heat_map(rows: Sequence[Row]) -> Figure | None:
    """The largest ratio by case and stage."""
    if not rows:
        return None
    stages = list(dict.fromkeys(row.stage for row in rows))
    heats = [
        heat(f"{pair}, {precision}", members, stages)
        for (pair, precision), members in grouped(rows, "pair", "precision").items()
    ]
    caption = (
        "Largest ratio of error and bound, by case and stage; above 1 a tap fails. 0: equal. A "
        "dash: all taps are zero by structure or have an absolute bound. Orange with X: "
        "different; yellow with ?: undecided; purple with ~: less precise; empty: not compared."
    )
    bad = max(rows, key=badness)
    alt = (
        f"Heat map of {len(heats)} pairs and precisions over {len(stages)} stages. The worst cell "
        f"is {bad.case}, {bad.stage} of {bad.pair} in {bad.precision}: ratio {ratio_text(bad)}, "
        f"{bad.verdict}. The table below holds the worst tap of each stage."
    )
    return Figure("Ratio by case and stage", caption, alt, encoded(heat_figure(heats)))


def heat(title: str, rows: Sequence[Row], stages: Sequence[str]) -> Heat:
    """One panel of the heat map."""
    cells = grouped(rows, "case", "stage")
    cases = list(dict.fromkeys(row.case for row in rows))
    ratios = np.full((len(cases), len(stages)), np.nan)
    verdicts = [["equivalent"] * len(stages) for _ in cases]
    for (case, stage), members in cells.items():
        place = cases.index(case), stages.index(stage)
        ratios[place] = max(ratio(row) for row in members)
        verdicts[place[0]][place[1]] = worst([row.verdict for row in members])
    return Heat(title, cases, stages, ratios, verdicts)


def score_plot(paths: Sequence[tuple[Path, Path]]) -> Figure | None:
    """Plots of part scores, for pairs of traces that both hold them whole."""
    cases = []
    for pair in paths:
        traces = [read_trace(path) for path in pair]
        expected, found = (whole(trace, SCORES) for trace in traces)
        if expected is None or found is None or expected.shape != found.shape or not expected.size:
            continue
        case = f"case {traces[0].manifest.get('case', '')}"
        cases.append(Scores(case, traces[1].label, traces[0].label, found, expected))
    if not cases:
        return None
    largest = max(float(np.abs(case.found - case.expected).max()) for case in cases)
    caption = (
        "Part scores of every image, head and patch. Left: candidate over baseline. Right: their "
        "difference."
    )
    alt = f"Scatter plots of {len(cases)} cases; the largest difference is {number(largest)}."
    return Figure("Part scores", caption, alt, encoded(score_figure(cases)))


def encoded(svg: bytes) -> str:
    """SVG in base64, for a `data:` address."""
    return base64.b64encode(svg).decode()
