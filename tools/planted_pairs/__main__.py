"""Plant faults in pairs of small PyTorch models: are they caught, placed and named?

    python -m tools.planted_pairs --out build/planted              # every entry, and the page
    python -m tools.planted_pairs --only 'mask-*' 'clean-*'        # some of them
    python -m tools.planted_pairs --resnet18                       # three faults in a ResNet-18

Each entry of `layers.py`, `blocks.py` and `states.py` is recorded as `parity run` does, but in this
process. OUT has a folder for each entry, with its pair file and the answer, and the page
planted-pairs.md. Exit codes: 0 every answer is right; 1 else.
"""

import argparse
import sys
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import torch

from parity.api import explained, tell
from parity.errors import ParityError
from tools.planted_pairs.faults import ALL
from tools.planted_pairs.page import page
from tools.planted_pairs.recording import record_and_compare
from tools.planted_pairs.resnet18 import EXPECTED
from tools.planted_pairs.trying import at, try_pair

RESNET = "from tools.planted_pairs.resnet18 import make_pair\n\npair = make_pair()\n"


def chosen(patterns: Sequence[str]) -> list[str]:
    """The entries that the patterns fit.

    Raises:
        ParityError: a pattern fits none.
    """
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in ALL):
            raise ParityError(f"--only {pattern}: expected one of {', '.join(ALL)}, or a pattern")
    return [name for name in ALL if any(fnmatchcase(name, p) for p in patterns)]


def try_all(names: Sequence[str], out: Path, keep: bool) -> int:
    """Try the entries and write the page; 0 if every answer is right."""
    outcomes = []
    for name in names:
        outcome = try_pair(name, out, keep)
        outcomes.append(outcome)
        codes = ", ".join(each.code or "no known cause" for each in outcome.findings)
        word = "right" if outcome.right else "WRONG"
        print(f"{name}: {word}: {outcome.verdict}; {codes or 'no findings'}", flush=True)
        (out / "planted-pairs.md").write_text(page(outcomes), encoding="utf-8")
    return 0 if all(each.right for each in outcomes) else 1


def try_resnet18(folder: Path) -> int:
    """Three faults in one ResNet-18: the answer, and its page; 0 if it has these three findings."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "pair.py"
    file.write_text(RESNET, encoding="utf-8")
    comparison, traces, _ = record_and_compare(file, folder)
    tell(comparison, traces, folder)
    findings = explained(comparison).findings
    right = len(findings) == len(EXPECTED) and all(
        any(at(each, place) and each.code == code for each in findings)
        for place, code in EXPECTED.items()
    )
    print(f"page: {folder / 'report.html'}")
    print(f"expected these findings: {EXPECTED}: {'right' if right else 'WRONG'}")
    return 0 if right else 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tool."""
    parser = argparse.ArgumentParser(prog="python -m tools.planted_pairs", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/planted"), metavar="FOLDER")
    parser.add_argument("--only", nargs="+", default=["*"], metavar="NAME", help="or patterns")
    parser.add_argument("--keep", action="store_true", help="keep the traces")
    parser.add_argument("--resnet18", action="store_true", help="three faults in a ResNet-18")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # the networks are tiny
    try:
        if options.resnet18:
            return try_resnet18(options.out / "resnet18")
        return try_all(chosen(options.only), options.out, options.keep)
    except ParityError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
