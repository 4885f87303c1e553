"""Audit Jittor's own models: each against PyTorch's, and what is wrong upstream.

    python -m tools.jittor_models                       # every model, some 40 minutes on two cores
    python -m tools.jittor_models resnet18 googlenet    # some of them
    python -m tools.jittor_models --page                # write the page from what was recorded

Each model is a pair (`zoo.py`) that `parity run` records, compares and explains. `upstream.yaml`
holds what was read in Jittor's source; its lines of code are run again. The page,
OUT/jittor_models.md, says for each model what is equal and what is not, with cause and place.

Needs torchvision and timm (`pip install -e '.[bench]'`). Exit codes: 0 every finding has an entry
in upstream.yaml, and every entry's lines print what it says; 1 else.
"""

import argparse
import contextlib
import io
import json
import os
import shutil
import sys
import time
from pathlib import Path

from parity.diagnose.upstream import load_entries
from parity.errors import ParityError
from parity.running import run_pair
from tools.jittor_models.page import Audit, page_text, unknown_findings
from tools.jittor_models.reproductions import confirm
from tools.jittor_models.zoo import BY_NAME

ROOT = Path(__file__).resolve().parents[2]
PAIR = """from tools.jittor_models.zoo import make_pair

pair = make_pair({name!r})
"""
RESULT = "audit.json"


def audit(name: str, folder: Path, keep: bool) -> Audit:
    """Record, compare and explain one model; its traces are deleted unless `keep`."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "pair.py"
    file.write_text(PAIR.format(name=name), encoding="utf-8")
    start = time.monotonic()
    text = io.StringIO()
    error = ""
    (folder / "parity.json").unlink(missing_ok=True)
    try:
        with contextlib.redirect_stdout(text):
            run_pair(file, folder, fresh=True)
    except ParityError as problem:
        error = str(problem)
    seconds = round(time.monotonic() - start)
    (folder / "answer.txt").write_text(text.getvalue(), encoding="utf-8")
    report = {} if error else json.loads((folder / "parity.json").read_text(encoding="utf-8"))
    result = Audit.of(name, report, error, seconds)
    (folder / RESULT).write_text(json.dumps(result._asdict(), indent=1), encoding="utf-8")
    if not keep:
        for trace in folder.glob("*.npz"):
            trace.unlink()
        shutil.rmtree(folder / "traces", ignore_errors=True)
    return result


def main() -> int:
    """Run what is asked for, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", default=[], help="models; default: all")
    parser.add_argument("--out", type=Path, default=Path("build/jittor_models"))
    parser.add_argument("--keep", action="store_true", help="keep the traces (some GB)")
    parser.add_argument("--page", action="store_true", help="only write the page again")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in BY_NAME]
    if unknown:
        parser.error(f"{unknown[0]}: expected one of {', '.join(BY_NAME)}")
    entries = load_entries()
    wrong = [] if options.page else [text for entry in entries for text in confirm(entry)]
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    for name in [] if options.page else options.names or list(BY_NAME):
        print(f"== {name}", file=sys.stderr, flush=True)
        result = audit(name, options.out / name, options.keep)
        print(f"{name}: {result.sentence} ({result.seconds} s)", flush=True)
    files = [options.out / name / RESULT for name in BY_NAME]
    audits = [Audit(**json.loads(file.read_text("utf-8"))) for file in files if file.is_file()]
    (options.out / "jittor_models.md").write_text(page_text(audits, entries), encoding="utf-8")
    problems = wrong + unknown_findings(audits, entries)
    for problem in problems:
        print(f"problem: {problem}")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
