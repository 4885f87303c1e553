"""`transfg report`."""

from pathlib import Path
from typing import Annotated

import typer

from transfg.options import check_folder


def report(
    runs: Annotated[list[Path], typer.Argument(help="run folders")],
    out: Annotated[Path, typer.Option(help="folder for report.md and report.html")],
    parity: Annotated[
        Path | None, typer.Option(help="parity.json of `transfg parity`, to include")
    ] = None,
    pictures: Annotated[Path | None, typer.Option(help="a PNG to include")] = None,
) -> None:
    """Write one page about runs: numbers, curves, agreement, parity, commands."""
    from transfg_core.report.page import write_report

    check_folder("--out", out)
    write_report(runs, out, parity, pictures)
    print(out / "report.html")
