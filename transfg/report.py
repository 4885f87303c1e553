"""`transfg report`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from transfg.options import check_folder, one_of

if TYPE_CHECKING:
    from transfg_core.report.pairs import Verdict


def report(
    runs: Annotated[list[Path], typer.Argument(help="run folders, or the folder of a sweep")],
    out: Annotated[Path, typer.Option(help="folder for report.md, report.html and tables/")],
    against: Annotated[
        str | None, typer.Option(help="published: put published numbers beside those of the runs")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="folder of the images: also draw those of the most confused classes"),
    ] = None,
    margin: Annotated[
        float,
        typer.Option(
            min=0.01, max=100, help="largest difference that counts as equal, in percentage points"
        ),
    ] = 1.0,
    parity: Annotated[
        Path | None, typer.Option(help="parity.json of `transfg parity`, to include")
    ] = None,
    pictures: Annotated[Path | None, typer.Option(help="a PNG to include")] = None,
) -> None:
    """Write one page about runs: what differs, comparisons, verdicts, curves, classes, commands.

    The tables of the papers appear if the runs hold their comparison: method and split,
    contrastive loss, margin, fusion. Runs that differ only in the seed are averaged. The page is
    Markdown and HTML; the folder tables/ has CSV for programs and LaTeX for papers.
    """
    from transfg_core.report.page import Extras, write_report

    check_folder("--out", out)
    if against is not None:
        one_of("--against", against, ("published",))

    def judge(left: Sequence[Path], right: Sequence[Path]) -> "Verdict":
        return verdict(left, right, margin)

    extras = Extras(
        parity, pictures, against is not None, str(data) if data else None, judge, margin
    )
    write_report(runs, out, extras)
    print(out / "report.html")


def verdict(left: Sequence[Path], right: Sequence[Path], margin: float) -> "Verdict":
    """What `transfg parity accuracy` says about runs of equal seeds, as text for a table.

    `margin` is in percentage points. Runs that it refuses have the reason in place of a verdict.
    """
    from parity.runs.accuracy import compare_accuracy, interval_text, needed_text, points_text
    from transfg_core.errors import UserError
    from transfg_core.report.pairs import Verdict

    try:
        result = compare_accuracy(left, right, margin / 100)
    except UserError as error:
        return Verdict(str(len(left)), "", "", f"none: {error}", "")
    return Verdict(
        str(len(left)),
        points_text(result.seeds.difference),
        interval_text(result.seeds.interval),
        result.verdict,
        "" if result.verdict != "undecided" else needed_text(result),
    )
