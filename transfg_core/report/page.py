"""A report about one or several runs: the answer first, then comparisons, curves and details.

It reads only run folders, so that every number on the page comes from a file; published numbers
come from `published.yaml` and have columns of their own. The same folders, in any order, give the
same bytes.
Jinja2 and matplotlib are imported only when a page is written.
"""

import base64
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from transfg_core.errors import UserError
from transfg_core.report import details, output, per_class
from transfg_core.report.beside import published_table
from transfg_core.report.cells import Cell, Column, all_columns, cells_of
from transfg_core.report.comparisons import comparison_tables
from transfg_core.report.confusions import confusion_rows, confusion_table
from transfg_core.report.curves import draw
from transfg_core.report.data_files import cell_rows, run_rows
from transfg_core.report.pairs import Judge, Pair, pairs_of, speed_table, verdict_table
from transfg_core.report.parity_suite import parity_table
from transfg_core.report.pictures import confusion_picture
from transfg_core.report.published import published_results
from transfg_core.report.summary import sentences, summary
from transfg_core.report.tables import Table
from transfg_core.run.reading import Run, load_run, load_runs, run_folders

__all__ = ["Extras", "Run", "load_run", "write_report"]

PNG = b"\x89PNG\r\n\x1a\n"
LONG = 40  # rows of a table from which it is folded
MOST_OPEN = 8  # unfinished runs that are named


class Extras(NamedTuple):
    """What a report may hold besides what its run folders say."""

    parity: Path | None = None  # the parity.json of `transfg parity`
    pictures: Path | None = None  # a PNG, such as one of `transfg parts`
    published: bool = False  # published numbers beside those of the runs
    data: str | None = None  # folder of the images, to draw the classes that runs confuse
    judge: Judge | None = None  # the verdict on the accuracies of a pair of backends
    margin: float = 1.0  # of that verdict, in points


NOTHING = Extras()


def write_report(runs: Sequence[Path], out: Path, extras: Extras = NOTHING) -> Path:
    """Write report.md, report.html (a self-contained file), pictures, and tables/*.csv and *.tex.

    Args:
        runs: run folders, or folders of run folders such as that of a sweep.
        out: folder, made if missing; files of an older report are replaced.
        extras: what else the report holds.

    Returns:
        The path of report.html.

    Raises:
        UserError: an input is missing or damaged, or matplotlib or Jinja2 is not installed.
        RunFailed: the report cannot be written.
    """
    if not runs:
        raise UserError("a report needs at least one run folder, found none; give some")
    cells = cells_of(load_runs(run_folders(runs)))
    loaded = [run for cell in cells for run in cell.runs]  # in the order of the page
    columns, pairs, groups = all_columns(cells), pairs_of(cells), per_class.groups_of(cells)
    pictures = _pictures(extras, groups)
    drawn = draw(cells, columns, pairs)
    page: dict[str, Any] = {
        "answer": summary(cells, columns),
        "sentences": sentences(cells, columns),
        "open_runs": [run for run in loaded if run.state != "finished"],
        "most_open": MOST_OPEN,
        "long": LONG,
        "tables": _comparisons(cells, columns, pairs, extras),
        "drawn": drawn,
        "classes": _classes(groups, columns),
        "details": _details(loaded, cells, pairs, extras),
        "commands": [
            (run.label, [shlex.join(start.get("command", [])) for start in run.starts])
            for run in loaded
        ],
        "pictures": {name: base64.b64encode(data).decode() for name, data in pictures.items()},
    }
    files = {name: output.render(f"{name}.j2", page) for name in ("report.md", "report.html")}
    files |= {"curves.svg": drawn.svg.encode(), **pictures}
    files |= output.tex_files([page["answer"], *page["tables"], *page["classes"]])
    files |= output.csv_file("runs", run_rows(cells))
    files |= output.csv_file("configurations", cell_rows(cells))
    files |= output.csv_file("per_class", per_class.per_class_rows(groups, columns))
    files |= output.csv_file("confusions", confusion_rows(groups))
    output.write(out, files)
    return out / "report.html"


def _comparisons(
    cells: Sequence[Cell], columns: Sequence[Column], pairs: Sequence[Pair], extras: Extras
) -> list[Table]:
    tables = comparison_tables(cells, columns)
    if extras.published:
        tables.append(published_table(cells, columns, published_results()))
    if extras.judge is not None:
        tables.append(verdict_table(pairs, columns, extras.judge, extras.margin))
    return _filled([*tables, speed_table(pairs, columns)])


def _classes(groups: Sequence[per_class.Group], columns: Sequence[Column]) -> list[Table]:
    tables = [per_class.macro_table(groups, columns), per_class.weakest_table(groups)]
    return _filled([*tables, confusion_table(groups)])


def _details(
    runs: Sequence[Run], cells: Sequence[Cell], pairs: Sequence[Pair], extras: Extras
) -> list[Table]:
    tables = [details.runs_table(runs), details.stage_losses_table(runs)]
    tables.append(details.augmented_table(runs))
    tables += [details.settings_table(cells), details.agreement_table(runs, pairs)]
    if extras.parity is not None:
        tables.append(parity_table(extras.parity))
    tables += [details.weights_table(runs), details.environment_table(runs)]
    return _filled([*tables, details.folders_table(runs)])


def _filled(tables: Sequence[Table]) -> list[Table]:
    return [table for table in tables if table.rows]


def _pictures(extras: Extras, groups: Sequence[per_class.Group]) -> output.Files:
    files = {}
    if extras.pictures is not None:
        files[output.PARTS] = _read_picture(extras.pictures)
    if extras.data is not None and groups:
        files[output.CONFUSIONS] = confusion_picture(groups, extras.data)
    return files


def _read_picture(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot read the picture: {error.strerror}") from error
    if not data.startswith(PNG):
        raise UserError(
            f"{path}: expected a PNG picture, found {data[:8]!r}; use `transfg parts` to make one"
        )
    return data
