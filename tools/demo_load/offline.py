"""The answers of models without any server, as JSON: for each run, file name -> answer.

python -m tools.demo_load.offline BACKEND FOLDER RUN...

A process of its own, since the two frameworks must not share one.
"""

import json
import sys
from pathlib import Path
from typing import Any

from transfg_core.inference.predictor import load


def main(backend: str, folder: str, *runs: str) -> None:
    """Answer each file of the folder, one at a time, as the demo does."""
    paths = sorted(Path(folder).iterdir())
    print(json.dumps([answers_of(run, backend, paths) for run in runs]))


def answers_of(run: str, backend: str, paths: list[Path]) -> dict[str, dict[str, Any]]:
    """File name -> answer."""
    model, answers = load(run, backend), {}
    for path in paths:
        (result,) = model(path.read_bytes())
        patches = None if result.part_index is None else result.part_index.tolist()
        shares = result.probabilities.tolist()
        answers[path.name] = {"probabilities": shares, "patches": patches}
    return answers


if __name__ == "__main__":
    main(*sys.argv[1:])
