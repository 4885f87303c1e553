"""Record a pair on two machines, one side at a time, into a folder that travels between them.

    parity record pair.py baseline --out F     # 1: draws the weights, records what modules get
    parity record pair.py candidate --out F    # 2: where the candidate's environment is
    parity record pair.py baseline --out F     # 3: follows the candidate's choices
    parity compare F

The folder needs to hold the files of the steps before.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from parity.errors import ParityError
from parity.recording.pair import SIDES
from parity.recording.processes.plan import Request, requests
from parity.recording.processes.runner import Recorded, Runner, Say
from parity.recording.side import load_arrays, subject_facts

FED = "fed"  # the baseline's pass by its own choices; isolated replay is fed from it
FACTS = "{}.json"  # of each side: what the other machine needs to know


def record_side(
    path: Path,
    side: str,
    out: Path,
    pythons: Mapping[str, str] | None = None,
    fresh: bool = False,
    say: Say = print,
) -> Recorded:
    """Record what one side of a pair can record by now.

    Raises:
        ParityError: a step before is missing, or as in `record_pair`.
    """
    if side not in SIDES:
        raise ParityError(f"{side}: expected one of {', '.join(SIDES)}")
    with Runner(path, out, pythons or {}, fresh, say) as runner:
        (_baseline if side == "baseline" else _candidate)(runner)
    return runner.recorded


def _baseline(runner: Runner) -> None:
    runner.prepare_baseline()
    _write_facts(runner, "baseline")
    runner.record(Request("baseline", "pass", "float32"), FED)
    facts = runner.out / FACTS.format("candidate")
    if facts.is_file():
        runner.described["candidate"] = json.loads(facts.read_text())
        _record(runner, "baseline")
    else:
        runner.say(f"next: record the candidate into a copy of {runner.out}")


def _candidate(runner: Runner) -> None:
    facts = runner.out / FACTS.format("baseline")
    if not facts.is_file() or not (runner.out / f"{FED}.npz").is_file():
        raise ParityError(
            f"{runner.out}: expected the baseline's weights and recording, found none; first run "
            "`parity record PAIR baseline --out FOLDER`, and copy this folder here"
        )
    runner.described["baseline"] = json.loads(facts.read_text())
    inputs = runner.pair.arrays()
    weights = load_arrays(runner.out / "weights.npz")
    runner.facts = subject_facts(runner.pair, weights, inputs)
    runner.prepare_candidate()
    _write_facts(runner, "candidate")
    _record(runner, "candidate")
    runner.say(f"next: copy {runner.out} back, and record the baseline again")


def _record(runner: Runner, side: str) -> None:
    abilities = {name: runner.described[name]["abilities"] for name in SIDES}
    for request in requests(runner.pair, abilities):
        if request.source:
            request = replace(request, source=FED)
        if request.side == side and not (request.branch and runner.same_branch(request)):
            runner.record(request)


def _write_facts(runner: Runner, side: str) -> None:
    path = runner.out / FACTS.format(side)
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(json.dumps(runner.described[side]))
    temporary.replace(path)
