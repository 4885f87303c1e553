"""How often is a verdict wrong? Pairs of known truth, judged by `parity` and by other tools' rules.

    python -m tools.calibration --out build/calibration          # all 120 pairs
    python -m tools.calibration --quick                          # every tenth network
    python -m tools.calibration --only 'fault-*-transformer' --keep

Each pair is PyTorch against PyTorch. The candidate is right (the same function, computed in another
way) or has one planted fault. A rule's false alarm is a right pair with any tap flagged; a miss is
a faulty pair without one. Results of pairs stay in `out`, so that the command can resume.
`--fresh` starts again. It writes `calibration.md` (tables) and `calibration.json`.
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path
from queue import Empty, Queue
from typing import Any

from tools.calibration.design import QUICK, Case, cases
from tools.calibration.judging import judge_case
from tools.calibration.page import tables
from tools.calibration.recording import Pool, record

# an order that mixes sizes and kinds, so that an unfinished run shows all of them
STRIDE, NETWORKS = 17, 60


def run_case(case: Case, out: Path, pool: Pool, keep: bool) -> dict[str, Any]:
    """Record and judge one pair; its facts are written, its traces are deleted."""
    started = time.monotonic()
    folder = out / "traces" / case.name
    shutil.rmtree(folder, ignore_errors=True)
    record(case, folder, pool)
    recorded = time.monotonic() - started
    facts = judge_case(case, folder) | {"recording": recorded}
    write(out / "pairs" / f"{case.name}.json", json.dumps(facts, indent=1))
    if not keep:
        shutil.rmtree(folder)
    return facts


def run_all(todo: Sequence[Case], out: Path, jobs: int, keep: bool, until: float) -> None:
    """Run the cases in `jobs` groups of processes; start none after `until`."""
    left: Queue[Case] = Queue()
    for case in todo:
        left.put(case)

    def work(number: int) -> None:
        with Pool(out / f"logs-{number}") as pool:
            while time.monotonic() < until:
                try:
                    case = left.get_nowait()
                except Empty:
                    return
                print(line_on(run_case(case, out, pool, keep)), flush=True)

    with ThreadPoolExecutor(jobs) as threads:
        for done in [threads.submit(work, number) for number in range(jobs)]:
            done.result()


def line_on(facts: dict[str, Any]) -> str:
    """A line on one pair, while the command runs."""
    case = facts["case"]
    kind = "right" if case["right"] else "fault"
    flags = ", ".join(str(rule["flagged"]) for rule in facts["rules"].values())
    size = f"{case['kind']} {case['activation']} {case['depth']} x {case['width']}"
    return (
        f"{kind} {case['number']:02d} {size}: {case['change']}: {facts['verdict']}; flags {flags}"
    )


def write(path: Path, text: str) -> None:
    """A file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, and write the tables."""
    parser = argparse.ArgumentParser(prog="python -m tools.calibration", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/calibration"))
    parser.add_argument("--quick", action="store_true", help="every tenth network")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="pairs by name")
    parser.add_argument("--jobs", type=int, default=2, help="pairs at a time")
    parser.add_argument("--minutes", type=float, default=1e9, help="start no pair after so many")
    parser.add_argument("--keep", action="store_true", help="keep the traces")
    parser.add_argument("--fresh", action="store_true", help="run again what was run already")
    options = parser.parse_args(arguments)
    wanted = [case for case in cases() if fnmatchcase(case.name, options.only)]
    wanted = [case for case in wanted if not options.quick or case.number % QUICK == 0]
    wanted.sort(key=lambda case: case.number * STRIDE % NETWORKS)
    if not wanted:
        parser.error(f"--only {options.only}: no such pair, such as {cases()[0].name}")
    files = {case: options.out / "pairs" / f"{case.name}.json" for case in wanted}
    todo = [case for case, file in files.items() if options.fresh or not file.is_file()]
    until = time.monotonic() + 60 * options.minutes
    run_all(todo, options.out, options.jobs, options.keep, until)
    found = [json.loads(file.read_text()) for file in files.values() if file.is_file()]
    write(options.out / "calibration.json", json.dumps(found, indent=1))
    write(options.out / "calibration.md", tables(found))
    print(f"{len(found)} of {len(wanted)} pairs; tables: {options.out / 'calibration.md'}")
    return 0 if len(found) == len(wanted) else 2


if __name__ == "__main__":
    sys.exit(main())
