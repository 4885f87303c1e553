"""The ladder, end to end: record each backend in its own process, compare, print, decide.

Exit codes: 0 all rungs agree, 1 some rung differs, 2 a backend could not be recorded.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from parity.cases import CASES
from parity.compare import Verdict, compare_rung, load_tolerances, rung_of
from parity.golden import GOLDENS
from parity.record import trace_path
from transfg_core.backend import BACKENDS, Arrays, load_published_reader
from transfg_core.checkpoint import replace_file
from transfg_core.errors import UserError
from transfg_core.records import clean

TWINS = ("jittor", "torch")  # what is judged, and what it is judged against
GOLDEN_FORWARD = ("block00", "block01", "block02", "features", "logits", "part_index", "part_score")


def run_suite(out: Path) -> int:
    """Record both backends, compare them with each other and with the published program.

    Writes traces, `environment-*.json` and `parity.json` into `out`.

    Raises:
        UserError: a backend could not be recorded; its own message went to standard error.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / "parity.json").unlink(missing_ok=True)  # an older verdict must not outlive a failure
    reader = load_published_reader()
    for golden in GOLDENS:
        reader.convert(golden.checkpoint, out / f"golden-{golden.name}.safetensors")
    for name in TWINS:
        record(name, out)
    for name, owner in (TWINS, TWINS[::-1]):
        record(name, out, "--load-from", owner)
    verdicts = compare_all(out)
    print_table(verdicts)
    agree = all(one.verdict == "agree" for one in verdicts)
    result = {
        "verdict": "agree" if agree else "differ",
        "rungs": [one.row() for one in verdicts],
        "environment": {
            name: json.loads((out / f"environment-{name}.json").read_text(encoding="utf-8"))
            for name in BACKENDS
        },
    }
    text = json.dumps(clean(result), indent=2)
    replace_file(out / "parity.json", (text + "\n").encode())
    return 0 if agree else 1


def record(backend: str, out: Path, *options: str) -> None:
    """Run one recording child; what it prints goes to standard error."""
    command = [sys.executable, "-m", "parity.record", "--backend", backend, "--out", str(out)]
    root = str(Path(__file__).resolve().parent.parent)
    path = os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH")) if part)
    done = subprocess.run(
        [*command, *options], stdout=sys.stderr, env=os.environ | {"PYTHONPATH": path}, check=False
    )
    if done.returncode:
        raise UserError(
            f"parity: recording backend {backend} ended with status {done.returncode} (see above); "
            "`transfg doctor` tells what works here"
        )


def load_trace(folder: Path, kind: str, name: str, backend: str) -> Arrays:
    """One trace file as `rung/tap` -> array."""
    with np.load(trace_path(folder, kind, name, backend), allow_pickle=False) as stored:
        return {key: stored[key] for key in stored.files}


def compare_all(folder: Path) -> list[Verdict]:
    """Every rung of every case, then the golden traces of each backend."""
    tolerances = load_tolerances()
    return compare_twins(folder, tolerances["twins"]) + compare_golden(folder, tolerances["golden"])


def compare_twins(folder: Path, bounds: Mapping[str, float]) -> list[Verdict]:
    """Each rung between the twins; the cross-load against the state's owner, both ways."""
    verdicts = []
    traces = {
        (case.name, name): load_trace(folder, "case", case.name, name)
        for case in CASES
        for name in TWINS
    }
    pair = " : ".join(TWINS)
    for rung, bound in bounds.items():
        for case in CASES:
            judged, reference = (traces[case.name, name] for name in TWINS)
            if rung != "cross-load":
                both = rung_of(judged, rung), rung_of(reference, rung)
                verdicts.append(compare_rung(*both, rung, case.name, pair, bound))
                continue
            for name, owner in (TWINS, TWINS[::-1]):
                continued = load_trace(folder, "cross", case.name, name)
                both = rung_of(continued, rung), rung_of(traces[case.name, owner], rung)
                label = f"{owner} -> {name}"
                verdicts.append(compare_rung(*both, rung, case.name, label, bound))
    return verdicts


def compare_golden(folder: Path, bounds: Mapping[str, float]) -> list[Verdict]:
    """Each backend against the published program's arrays."""
    verdicts = []
    for golden in GOLDENS:
        published = golden_rungs(golden.trace())
        for name in TWINS:
            trace = load_trace(folder, "golden", golden.name, name)
            trace["forward/part_score"] = trace["forward/part_scores"].max(axis=-1)
            trace["learning rates/train_lrs"] = trace.pop("updates/train_lrs")
            for rung, bound in bounds.items():
                reference = published[rung]
                judged = {k: v for k, v in rung_of(trace, rung).items() if k in reference}
                pair = f"{name} : published"
                verdicts.append(compare_rung(judged, reference, rung, golden.name, pair, bound))
    return verdicts


def golden_rungs(trace: Arrays) -> dict[str, Arrays]:
    """A published trace sorted into rungs, under the names of this project's taps."""
    return {
        "forward": {name: trace[name] for name in GOLDEN_FORWARD},
        "losses": {"loss": trace["loss"].astype(np.float32)},  # it was stored in double
        "gradients": {name: value for name, value in trace.items() if name.startswith("grad/")},
        "learning rates": {"train_lrs": trace["train_lrs"]},
        "updates": {"train_losses": trace["train_losses"]}
        | {name: value for name, value in trace.items() if name.startswith("after/")},
    }


def print_table(verdicts: Sequence[Verdict]) -> None:
    """One line per rung and pair: the worst tap over all cases, and how many taps were compared."""
    groups: dict[tuple[str, str], list[Verdict]] = {}
    for one in verdicts:
        groups.setdefault((one.rung, one.pair), []).append(one)
    table = Table("rung", "pair", "taps", "worst tap", "relative L2", "bound", "verdict")
    for (rung, pair), members in groups.items():
        worst = max(members, key=lambda one: one.value)
        differ = any(one.verdict == "differ" for one in members)
        table.add_row(
            rung,
            pair,
            str(sum(one.taps for one in members)),
            f"{worst.case} {worst.worst_tap}" if worst.value > 0 else "",
            f"{max(worst.value, 0.0):.1e}",
            f"{worst.bound:.0e}" if worst.bound else "exact",
            "[red]differ[/]" if differ else "agree",
        )
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    failed = [one for one in verdicts if one.verdict == "differ"]
    print(
        f"{len(failed)} of {len(verdicts)} comparisons differ"
        if failed
        else f"the backends agree in all {len(verdicts)} comparisons"
    )
