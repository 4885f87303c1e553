"""One page about one or several runs: numbers, curves, agreement, and how to make them again.

Reads run folders only, so that every number on the page can be traced to a file. The same folders
give the same bytes. Jinja2 and matplotlib are imported only when a page is written.
"""

import base64
import json
import math
import shlex
from collections.abc import Collection, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from transfg_core.checkpoint import replace_file
from transfg_core.config import differing_keys
from transfg_core.curves import Curve, Points, draw_curves, load_optional
from transfg_core.errors import RunFailed, UserError
from transfg_core.results import Run, agreement, load_run

__all__ = ["Run", "load_run", "write_report"]

TEMPLATES = Path(__file__).parent / "templates"
NONE = "–"
PNG = b"\x89PNG\r\n\x1a\n"
NOT_THE_EXPERIMENT = ("run.name:", "run.dir:")  # keys in which twins' configurations may differ
PARITY_FORMAT = "parity-report/1"
PARITY_NOTE = (
    "The parity suite found {} Each line holds the worst tap of one comparison, candidate : first; "
    "errors are relative L2, and a ratio (error over bound) above 1 fails. All taps are in "
    "parity.json. Compared were {}."
)


class Table(NamedTuple):
    """Text in rows; the columns whose number is in `right` hold numbers."""

    title: str
    note: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: Collection[int]


def write_report(
    runs: Sequence[Path], out: Path, parity: Path | None = None, pictures: Path | None = None
) -> Path:
    """Write report.md, report.html (one file that needs no other), curves.svg and parts.png.

    Args:
        runs: run folders, in the order of the tables.
        out: folder, made if missing; files of an older report are replaced.
        parity: the parity.json of a parity run (parity/report.py).
        pictures: a PNG, such as `transfg_core.draw.part_picture` makes.

    Returns:
        The path of report.html.

    Raises:
        UserError: an input is missing or damaged, or matplotlib or Jinja2 is not installed.
        RunFailed: the report cannot be written.
    """
    if not runs:
        raise UserError("a report needs at least one run folder")
    loaded = [load_run(path) for path in runs]
    picture = None if pictures is None else _read_picture(pictures)
    page: dict[str, Any] = {
        "open_runs": [run for run in loaded if run.state != "finished"],
        "headline": _headline(loaded),
        "tables": _details(loaded, parity),
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
    return text.encode()


def _headline(runs: Sequence[Run]) -> Table:
    # (column, cell of a run)
    columns = (
        ("run", lambda run: run.config.run.name),
        ("backend", lambda run: run.backend),
        ("updates", lambda run: f"{run.update} of {run.config.train.steps}"),
        ("top-1 %", lambda run: _percent(run.final.get("top1"))),
        ("top-5 %", lambda run: _percent(run.final.get("top5"))),
        ("best top-1 %", lambda run: _percent(run.best_top1)),
        ("test loss", lambda run: _number(run.final.get("loss"), ".4f")),
        ("part hits %", lambda run: _percent(run.final.get("part_hit"))),
        ("by chance %", lambda run: _percent(run.final.get("part_hit_chance"))),
        ("images/s", lambda run: _number(run.images_per_second, ".1f")),
        ("memory MiB", lambda run: _number(_mebibytes(run.peak_memory_bytes), ".0f")),
        ("wall time", lambda run: _duration(run.seconds)),
    )
    rows = [[cell(run) for _, cell in columns] for run in runs]
    note = (
        "Accuracy, loss and part hits are those of the last evaluation; part hits are the share of "
        "chosen patches on a true discriminative part, beside what choosing at random would give. "
        "Images per second is the median over logged updates, memory the peak; wall time leaves "
        "out starts that were killed."
    )
    return Table("Results", note, [name for name, _ in columns], rows, range(2, len(columns)))


def _details(runs: Sequence[Run], parity: Path | None) -> list[Table]:
    tables = [_agreement_table(runs), _difference_table(runs)]
    if parity is not None:
        tables.append(_parity_table(parity))
    tables.append(_environment_table(runs))
    return [table for table in tables if table.rows]


def _agreement_table(runs: Sequence[Run]) -> Table:
    rows = []
    for left, right in combinations(runs, 2):
        found = agreement(left, right)
        if found is not None:
            share = _percent(found.same / found.images)
            counts = [f"{found.same} of {found.images}", share, found.only_left, found.only_right]
            gap = f"{100 * found.difference:+.2f}"
            rows.append([left.label, right.label, *map(str, counts), gap])
    header = ["A", "B", "same class", "%", "only A right", "only B right", "A - B, points"]
    note = "Final predictions, image by image."
    return Table("Agreement of predictions", note, header, rows, range(2, 7))


def _difference_table(runs: Sequence[Run]) -> Table:
    rows = []
    for run in runs[1:]:
        for line in _real_differences(runs[0], run):
            key, _, values = line.partition(": ")
            rows.append([run.label, key, *values.split(" -> ", 1)])
    header = ["run", "key", f"in {runs[0].label}", "in this run"]
    note = "Keys of the configuration whose values differ from those of the first run."
    return Table("Differences of configuration", note, header, rows, range(0))


def _parity_table(path: Path) -> Table:
    """What parity.json says, with one line per pair and precision."""
    names = ("rung", "case", "tap", "error", "floor", "bound", "ratio", "verdict")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["format"] != PARITY_FORMAT:
            raise ValueError(f"format {found['format']!r} is not {PARITY_FORMAT!r}")
        rows = []
        for (pair, precision), rungs in _by_comparison(found["rungs"]).items():
            worst = max(rungs, key=_badness)
            taps = str(sum(rung["taps"] for rung in rungs))
            rows.append([pair, precision, taps, *(_measured(worst, name) for name in names)])
        note = PARITY_NOTE.format(found["sentence"], _versions(found["environment"]))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{path}: expected the parity.json of a parity run by this version: {error!r}"
        ) from error
    header = ["pair", "dtype", "taps", "worst rung", "case", *names[2:]]
    return Table("Parity", note, header, rows, (2, 6, 7, 8, 9))


def _by_comparison(
    rungs: Sequence[dict[str, Any]],
) -> dict[tuple[str, str], list[dict[str, Any]]]:
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for rung in rungs:
        groups.setdefault((rung["pair"], rung["precision"]), []).append(rung)
    return groups


def _badness(rung: Mapping[str, Any]) -> tuple[int, float]:
    """By verdict, then by ratio; null is a number that is not finite."""
    order = ("equivalent", "undecided", "different").index(rung["verdict"])
    return order, math.inf if rung["ratio"] is None else float(rung["ratio"])


def _measured(rung: Mapping[str, Any], name: str) -> str:
    value = rung[name]
    return "not finite" if value is None else _cell(value)


def _versions(environment: Mapping[str, Any]) -> str:
    """Names and versions of what was compared; other facts are not mappings."""
    producers = {name: facts for name, facts in environment.items() if isinstance(facts, Mapping)}
    return (
        ", ".join(
            f"{name} {facts.get('version', '')} on {facts.get('device', 'an unknown device')}"
            for name, facts in producers.items()
        )
        or "unknown programs"
    )


def _environment_table(runs: Sequence[Run]) -> Table:
    newest = [flatten(run.starts[-1]) if run.starts else {} for run in runs]
    keys = [key for key in dict.fromkeys(key for one in newest for key in one) if key != "command"]
    rows = [["folder", *(str(run.path) for run in runs)]]
    rows += [["seed", *(str(run.config.run.seed) for run in runs)]]
    rows += [["starts", *(str(len(run.starts)) for run in runs)]]
    rows += [[key, *(_cell(one.get(key)) for one in newest)] for key in keys]
    note = "As of the last start of each run."
    return Table("Environment", note, ["", *(run.label for run in runs)], rows, range(0))


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        nested = isinstance(value, Mapping)
        flat |= flatten(value, f"{prefix}{key}.") if nested else {prefix + key: value}
    return flat


def _curve(run: Run) -> Curve:
    return Curve(run.label, _points(run.train, "loss", 1), _points(run.evals, "top1", 100))


def _points(records: Sequence[Mapping[str, Any]], key: str, factor: float) -> Points:
    return {one["update"]: factor * one[key] for one in records if one.get(key) is not None}


def _real_differences(left: Run, right: Run) -> list[str]:
    lines = differing_keys(left.config, right.config)
    return [line for line in lines if not line.startswith(NOT_THE_EXPERIMENT)]


def _twins(runs: Sequence[Run]) -> tuple[int, int] | None:
    """The first two runs of one configuration on different backends, if there are any."""
    for left, right in combinations(range(len(runs)), 2):
        pair = runs[left], runs[right]
        if pair[0].backend != pair[1].backend and not _real_differences(*pair):
            return left, right
    return None


def _read_picture(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot read the picture: {error.strerror}") from error
    if not data.startswith(PNG):
        raise UserError(f"{path}: expected a PNG picture, found {data[:8]!r}")
    return data


def _number(value: float | None, form: str) -> str:
    return NONE if value is None else format(value, form)


def _percent(fraction: float | None) -> str:
    return _number(None if fraction is None else 100 * fraction, ".2f")


def _mebibytes(count: float | None) -> float | None:
    return None if count is None else count / 2**20


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return NONE
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def _cell(value: Any) -> str:
    if value is None:
        return NONE
    return f"{value:.3g}" if isinstance(value, float) else str(value)
