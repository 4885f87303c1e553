"""The tables of a report: results, agreement and differences of runs, parity, environment."""

import json
import math
import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from transfg_core.config.loading import flatten
from transfg_core.errors import UserError
from transfg_core.report.numbers import NONE, number, percent
from transfg_core.run.reading import Run, agreement, over_seeds, real_differences

PARITY_FORMAT = "parity-report/3"
PARITY_NOTE = (
    "The parity suite found {} Each row shows the worst tap of one comparison, candidate : "
    "baseline. Errors are relative L2; a ratio (error over bound) above 1 fails. parity.json holds "
    "all taps. The suite compared {}."
)


class Table(NamedTuple):
    """Text in rows; the columns whose index is in `right` hold numbers and are right-aligned."""

    title: str
    note: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: Collection[int]


def headline(runs: Sequence[Run]) -> Table:
    """The results of each run."""
    # (name of the column, text of a run in it)
    columns = (
        ("run", lambda run: run.name),
        ("backend", lambda run: run.backend),
        ("updates", lambda run: f"{run.update} of {run.config.train.steps}"),
        ("top-1 %", lambda run: percent(run.final.get("top1"))),
        ("top-5 %", lambda run: percent(run.final.get("top5"))),
        ("best top-1 %", lambda run: percent(run.best_top1)),
        ("test loss", lambda run: number(run.final.get("loss"), ".4f")),
        ("part hits %", lambda run: percent(run.final.get("part_hit"))),
        ("by chance %", lambda run: percent(run.final.get("part_hit_chance"))),
        ("images/s", lambda run: number(run.images_per_second, ".1f")),
        ("memory MiB", lambda run: number(_mebibytes(run.peak_memory_bytes), ".0f")),
        ("wall time", lambda run: _duration(run.seconds)),
    )
    rows = [[cell(run) for _, cell in columns] for run in runs]
    cautions = [run.caution for run in runs]
    note = (
        "Accuracy, loss and part hits come from the last evaluation. Part hits are the share of "
        "chosen patches on a true discriminative part; the next column shows this share for random "
        "patches. Images per second is the median over logged updates, memory is the peak, and "
        "wall time leaves out starts that were killed."
    )
    note = " ".join([note, *(f"{caution}." for caution in dict.fromkeys(filter(None, cautions)))])
    return Table("Results", note, [name for name, _ in columns], rows, range(2, len(columns)))


def details(runs: Sequence[Run], parity: Path | None) -> list[Table]:
    """All other tables that have rows; `parity` is the path of a parity.json."""
    tables = [_seeds_table(runs), _agreement_table(runs), _difference_table(runs)]
    if parity is not None:
        tables.append(_parity_table(parity))
    tables += [_weights_table(runs), _environment_table(runs)]
    return [table for table in tables if table.rows]


def _seeds_table(runs: Sequence[Run]) -> Table:
    """Means and standard deviations of runs that differ only in the seed."""
    columns: tuple[tuple[str, Callable[[Run], float | None]], ...] = (
        ("top-1 %", lambda run: _times(100, run.final.get("top1"))),
        ("top-5 %", lambda run: _times(100, run.final.get("top5"))),
        ("best top-1 %", lambda run: _times(100, run.best_top1)),
        ("part hits %", lambda run: _times(100, run.final.get("part_hit"))),
        ("images/s", lambda run: run.images_per_second),
        ("minutes", lambda run: _times(1 / 60, run.seconds)),
    )
    rows = [
        [
            ", ".join(run.name for run in group),
            group[0].backend,
            str(len(group)),
            *(_spread([value(run) for run in group]) for _, value in columns),
        ]
        for group in over_seeds(runs)
    ]
    header = ["runs", "backend", "seeds", *(name for name, _ in columns)]
    note = "Mean and standard deviation of runs of one configuration that differ only in the seed."
    return Table("Over seeds", note, header, rows, range(2, len(header)))


def _spread(numbers: Sequence[float | None]) -> str:
    """Mean and standard deviation; a dash if a run lacks this number."""
    present = [value for value in numbers if value is not None]
    if len(present) < len(numbers):
        return NONE
    return f"{statistics.mean(present):.2f} ± {statistics.stdev(present):.2f}"


def _agreement_table(runs: Sequence[Run]) -> Table:
    """Agreement of pairs of runs; of equal seeds, if there are such pairs."""
    pairs = list(combinations(runs, 2))
    same_seed = [pair for pair in pairs if pair[0].config.run.seed == pair[1].config.run.seed]
    rows = []
    for left, right in same_seed or pairs:
        result = agreement(left, right)
        if result is not None:
            same = f"{result.same} of {result.images}"
            share = percent(result.same / result.images)
            counts = [same, share, result.only_left, result.only_right]
            gap = f"{100 * result.difference:+.2f}"
            rows.append([left.label, right.label, *map(str, counts), gap])
    header = ["A", "B", "same class", "%", "only A right", "only B right", "A - B, points"]
    note = "Final predictions, image by image"
    note += ", of runs with the same seed." if same_seed and same_seed != pairs else "."
    return Table("Agreement of predictions", note, header, rows, range(2, 7))


def _difference_table(runs: Sequence[Run]) -> Table:
    rows = []
    for run in runs[1:]:
        for line in real_differences(runs[0], run):
            key, _, values = line.partition(": ")
            rows.append([run.label, key, *values.split(" -> ", 1)])
    header = ["run", "key", f"in {runs[0].label}", "in this run"]
    note = "Keys of the configuration whose values differ from the first run."
    return Table("Differences of configuration", note, header, rows, range(0))


def _parity_table(path: Path) -> Table:
    """The results in a parity.json, with one row per pair and precision."""
    names = ("stage", "case", "tap", "error", "noise_floor", "bound", "ratio", "verdict")
    try:
        parity = json.loads(path.read_text(encoding="utf-8"))
        if parity["format"] != PARITY_FORMAT:
            raise UserError(
                f"{path}: expected the parity.json of this version, but this file was written by "
                f"another version (found format {parity['format']!r}, expected "
                f"{PARITY_FORMAT!r}); run `transfg parity` again"
            )
        rows = []
        for (pair, precision), stages in _by_comparison(parity["stages"]).items():
            worst = max(stages, key=_badness)
            taps = str(sum(stage["taps"] for stage in stages))
            rows.append([pair, precision, taps, *(_measured(worst, name) for name in names)])
        note = PARITY_NOTE.format(parity["sentence"], _versions(parity["environment"]))
    except UserError:
        raise
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{path}: expected the parity.json of a parity run, but it cannot be read as one: "
            f"{error!r}; check the path, or run `transfg parity` again"
        ) from error
    header = ["pair", "dtype", "taps", "worst stage", "case", "tap"]
    header += ["error", "noise floor", "bound", "ratio", "verdict"]
    return Table("Parity", note, header, rows, (2, 6, 7, 8, 9))


def _by_comparison(
    stages: Sequence[dict[str, Any]],
) -> dict[tuple[str, str], list[dict[str, Any]]]:
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for stage in stages:
        groups.setdefault((stage["pair"], stage["precision"]), []).append(stage)
    return groups


def _badness(stage: Mapping[str, Any]) -> tuple[int, float]:
    """Sort key: by verdict, then by ratio; null stands for a number that is not finite."""
    order = ("vacuous", "equivalent", "less precise", "undecided", "different")
    verdict = order.index(stage["verdict"])
    return verdict, math.inf if stage["ratio"] is None else float(stage["ratio"])


def _measured(stage: Mapping[str, Any], name: str) -> str:
    value = stage[name]
    return "not finite" if value is None else _cell(value)


def _versions(environment: Mapping[str, Any]) -> str:
    """Names, versions and devices of the compared programs; other facts are not mappings."""
    producers = {name: facts for name, facts in environment.items() if isinstance(facts, Mapping)}
    return (
        ", ".join(
            f"{name} {facts.get('version', '')} on {facts.get('device', 'an unknown device')}"
            for name, facts in producers.items()
        )
        or "unknown programs"
    )


def _weights_table(runs: Sequence[Run]) -> Table:
    """The files that runs started from."""
    rows = []
    for run in runs:
        names = ("file", "form", "bytes", "sha256")
        if run.weights:
            rows.append([run.label, *(_cell(run.weights.get(name)) for name in names)])
    header = ["run", "file", "names of", "bytes", "SHA-256"]
    return Table("Weights", "The files of model.pretrained.", header, rows, (3,))


def _environment_table(runs: Sequence[Run]) -> Table:
    newest = [flatten(run.starts[-1]) if run.starts else {} for run in runs]
    all_keys = dict.fromkeys(key for facts in newest for key in facts)
    keys = [key for key in all_keys if key != "command" and not key.startswith("weights.")]
    rows = [["folder", *(str(run.path) for run in runs)]]
    rows += [["seed", *(str(run.config.run.seed) for run in runs)]]
    rows += [["starts", *(str(len(run.starts)) for run in runs)]]
    rows += [[key, *(_cell(facts.get(key)) for facts in newest)] for key in keys]
    note = "From the last start of each run."
    return Table("Environment", note, ["", *(run.label for run in runs)], rows, range(0))


def _times(factor: float, value: float | None) -> float | None:
    return None if value is None else factor * value


def _mebibytes(count: float | None) -> float | None:
    return _times(2**-20, count)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return NONE
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def _cell(value: Any) -> str:
    if value is None:
        return NONE
    return f"{value:.3g}" if isinstance(value, float) else str(value)
