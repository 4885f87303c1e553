"""The table of a parity suite: the results in its parity.json."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transfg_core.errors import UserError
from transfg_core.report.numbers import cell
from transfg_core.report.tables import Table

PARITY_FORMAT = "parity-report/3"
PARITY_NOTE = (
    "The parity suite found {} Each row shows the worst tap of one comparison, candidate : "
    "baseline. Errors are relative L2; a ratio (error over bound) above 1 fails. parity.json holds "
    "all taps. The suite compared {}."
)


def parity_table(path: Path) -> Table:
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
    return "not finite" if value is None else cell(value)


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
