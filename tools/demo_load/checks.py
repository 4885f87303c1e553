"""What must hold of the demo's answers."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tools.demo_load.running import Sent
from transfg_core.machine import child_environment

Known = Mapping[tuple[str, str], Mapping[str, Any]]  # (model, backend) -> file name -> answer


def offline_answers(runs: Mapping[str, Path], backends: Sequence[str], folder: Path) -> Known:
    """The answers of each model in each backend without a server."""
    known = {}
    for backend in backends:
        command = [sys.executable, "-m", "tools.demo_load.offline", backend, str(folder)]
        done = subprocess.run(
            [*command, *map(str, runs.values())],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            env=child_environment(),
        )
        answers = json.loads(done.stdout.splitlines()[-1])
        known |= {(name, backend): of for name, of in zip(runs, answers, strict=True)}
    return known


def problems_of(sent: Sequence[Sent], known: Known) -> list[str]:
    """Requests whose answer is missing, or differs from the offline one in any number."""
    problems = []
    for request in sent:
        answers = request.answer.get("answers")
        if not answers or len(answers) != len(known):
            problems.append(f"{request.name}: no answer: {str(request.answer)[:200]}")
            continue
        for answer in answers:
            expected = known[answer["model"], answer["backend"]][request.name]
            for key in ("probabilities", "patches"):
                if answer[key] != expected[key]:
                    problems.append(f"{request.name}: {answer['model']}: other {key}")
    return problems


def unanswered(sent: Sequence[Sent], seconds: float) -> list[str]:
    """Malformed files without a proper answer, or with one that took longer."""
    problems = []
    for request in sent:
        said = request.answer
        if not ({"error", "detail"} <= said.keys() or said.get("answers")):
            problems.append(f"{request.name}: {str(said)[:200]}")
        if said.get("error") in ("crashed", "too_slow", "memory", "model"):
            problems.append(f"{request.name}: {said['error']}: {said['detail']}")
        if request.seconds > seconds:
            problems.append(f"{request.name}: took {request.seconds:.1f} s")
    return problems
