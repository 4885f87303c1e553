"""Load `transfg demo` with many requests at once, then with malformed files; print a report.

python -m tools.demo_load RUN... [--backends torch,jittor] [--requests 500] [--clients 8]
    [--malformed 200] [--seed 0] [--pictures] [--out report.json]

Checked: every request is answered; every answer equals that of the model without a server, in every
digit; memory does not grow; each malformed file gets an answer in 5 seconds, and no worker dies.
Exit code 1 if one of these fails.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tools.demo_load.checks import offline_answers, problems_of, unanswered
from tools.demo_load.malformed import malformed_files
from tools.demo_load.pictures import good_pictures
from tools.demo_load.running import Clients, Demo, Sent
from transfg.demo.service import distinct_names

PICTURES = 40  # different ones
ROUNDS = 5  # memory is measured after each; the first one warms up
GROWTH = 1.02  # of memory from the first round to the last; measured without a leak: up to 1.006
# pieces of free memory between those in use, so it moves; a leak shows in the memory in use
NOT_JUDGED = "server, resident"
LIMIT = 5.0  # seconds for the answer to a malformed file


def load(demo: Demo, options: argparse.Namespace, runs: dict[str, Path]) -> dict[str, Any]:
    """Send the requests in rounds, and compare every answer."""
    pictures = good_pictures(PICTURES)
    backends = options.backends.split(",")
    with tempfile.TemporaryDirectory() as folder:
        for name, content in pictures.items():
            (Path(folder) / name).write_bytes(content)
        known = offline_answers(runs, backends, Path(folder))
    asked = {"models": list(runs), "backends": backends, "pictures": options.pictures}
    clients = Clients(demo.address, options.clients, asked)
    names = list(pictures)
    files = [
        (names[k % len(names)], pictures[names[k % len(names)]]) for k in range(options.requests)
    ]
    share = -(-len(files) // ROUNDS)
    sent: list[Sent] = []
    memory, began = [], time.monotonic()
    for first in range(0, len(files), share):
        sent += clients.ask(files[first : first + share])
        memory.append(demo.memory())
    seconds = time.monotonic() - began
    growth = {name: memory[-1][name] / memory[0][name] for name in memory[0]}
    problems = problems_of(sent, known)
    problems += [
        f"memory of {name} grew by {x:.3f}"
        for name, x in growth.items()
        if x > GROWTH and name != NOT_JUDGED
    ]
    if len(sent) != options.requests:
        problems.append(f"{options.requests - len(sent)} requests lost")
    times = sorted(request.seconds for request in sent)
    return {
        "requests": len(sent),
        "clients": options.clients,
        "answers_compared": len(sent) * len(known),
        "requests_per_second": round(len(sent) / seconds, 2),
        "seconds": {"median": statistics.median(times), "largest": times[-1]},
        "megabytes_after_each_round": [
            {name: round(size / 1e6, 1) for name, size in row.items()} for row in memory
        ],
        "growth": growth,
        "problems": problems,
    }


def attack(demo: Demo, options: argparse.Namespace) -> dict[str, Any]:
    """Send the malformed files from two clients, so that each waits for one other at most."""
    before = demo.health()["workers"]
    sent = Clients(demo.address, 2, {"pictures": True}).ask(
        list(malformed_files(options.malformed, options.seed))
    )
    after = demo.health()["workers"]
    restarts = sum(after[name]["restarts"] - before[name]["restarts"] for name in after)
    problems = unanswered(sent, LIMIT) + ([f"{restarts} restarts"] if restarts else [])
    counts: dict[str, int] = {}
    for request in sent:
        outcome = request.answer.get("error", "decoded")
        counts[outcome] = counts.get(outcome, 0) + 1
    slowest = max(sent, key=lambda request: request.seconds)
    return {
        "files": len(sent),
        "outcomes": counts,
        "slowest": {"file": slowest.name, "seconds": slowest.seconds},
        "restarts": restarts,
        "problems": problems,
    }


def main() -> int:
    """Run both parts."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--backends", default="torch")
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--malformed", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pictures", action="store_true", help="also explain and draw")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    names = distinct_names(options.runs)
    backend = "both" if "," in options.backends else options.backends
    demo = Demo(*map(str, options.runs), "--backend", backend)
    try:
        runs = dict(zip(names, options.runs, strict=True))
        report = {"load": load(demo, options, runs), "malformed": attack(demo, options)}
    finally:
        report_code = demo.stop()
    report["exit_code"] = report_code
    text = json.dumps(report, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
    failed = report_code or report["load"]["problems"] or report["malformed"]["problems"]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
