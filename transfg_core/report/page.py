"""A report about one or several runs: numbers, curves, agreement, and commands to repeat the runs.

It reads only run folders, so that every number on the page comes from a file. The same folders
give the same bytes. Jinja2 and matplotlib are imported only when a page is written.
"""

import base64
import shlex
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from transfg_core.checkpoints.file import replace_file
from transfg_core.errors import RunFailed, UserError
from transfg_core.report.plots import Curve, Points, draw_curves, load_optional
from transfg_core.report.tables import details, headline
from transfg_core.run.reading import Run, load_run, load_runs, real_differences

__all__ = ["Run", "load_run", "write_report"]

TEMPLATES = Path(__file__).parent / "templates"
PNG = b"\x89PNG\r\n\x1a\n"


def write_report(
    runs: Sequence[Path], out: Path, parity: Path | None = None, pictures: Path | None = None
) -> Path:
    """Write report.md, report.html (a self-contained file), curves.svg and parts.png.

    Args:
        runs: run folders, in the order of the tables.
        out: folder, made if missing; files of an older report are replaced.
        parity: the parity.json of `transfg parity`.
        pictures: a PNG, such as one of `transfg_core.explain.drawing.part_picture`.

    Returns:
        The path of report.html.

    Raises:
        UserError: an input is missing or damaged, or matplotlib or Jinja2 is not installed.
        RunFailed: the report cannot be written.
    """
    if not runs:
        raise UserError("a report needs at least one run folder, found none; give some")
    loaded = load_runs(runs)
    picture = None if pictures is None else _read_picture(pictures)
    page: dict[str, Any] = {
        "open_runs": [run for run in loaded if run.state != "finished"],
        "headline": headline(loaded),
        "tables": details(loaded, parity),
        "commands": [
            (run.label, [shlex.join(start.get("command", [])) for start in run.starts])
            for run in loaded
        ],
        "svg": draw_curves([_curve(run) for run in loaded], _twins(loaded)),
        "picture": None if picture is None else base64.b64encode(picture).decode(),
    }
    files = {name: _render(f"{name}.j2", page) for name in ("report.md", "report.html")}
    files["curves.svg"] = page["svg"].encode()
    if picture is not None:
        files["parts.png"] = picture
    _write(out, files)
    return out / "report.html"


def _write(out: Path, files: Mapping[str, bytes]) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            replace_file(out / name, data)
    except OSError as error:
        raise RunFailed(f"{out}: cannot write the report: {error.strerror}") from error


def _render(template: str, page: Mapping[str, Any]) -> bytes:
    jinja2 = load_optional("jinja2")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=template.endswith(".html.j2"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    text: str = environment.get_template(template).render(page)
    # a folder's name may hold bytes that are no UTF-8, which Python keeps as half surrogates
    return text.encode("utf-8", "backslashreplace")


def _curve(run: Run) -> Curve:
    return Curve(run.label, _points(run.train, "loss", 1), _points(run.tracked, "top1", 100))


def _points(records: Sequence[Mapping[str, Any]], key: str, factor: float) -> Points:
    return {
        record["update"]: factor * record[key] for record in records if record.get(key) is not None
    }


def _twins(runs: Sequence[Run]) -> tuple[int, int] | None:
    """Positions of the first two runs of one configuration on different backends, or None."""
    for left, right in combinations(range(len(runs)), 2):
        pair = runs[left], runs[right]
        if pair[0].backend != pair[1].backend and not real_differences(*pair):
            return left, right
    return None


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
