"""Turn what the stages left (tools/gpu/unattended.py) into a folder that can be read and kept.

    python tools/gpu/report.py OUT docs/gpu-report

README.md there holds, for each stage, its command and how it ended, with what it found: verdict and
worst taps of the suite, tables of times and memory, accuracies with their verdict. Beside it lie
the files that the numbers come from; of parity.json without its thousands of rows. Every number on
the page is read from such a file. Of absolute paths the last name is left. One script and its
template, complete in themselves; they need Jinja2 and PyYAML.
"""

import argparse
import json
import re
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import yaml

from transfg_core.report.numbers import NONE, number

ROOT = Path(__file__).resolve().parents[2]
TAIL = 12  # lines of the log of a stage that failed
KEPT = ("*.txt", "*.json", "*.svg", "*.md", "*.html", "*.csv", "*.yaml", "*.jsonl")
LARGEST = 2 * 2**20  # bytes of a file that is kept
FOLDERS = re.compile(
    r"(?:(?<=[\s\"'(>=])|^)/(?:[\w.+@-]+/)+(?=[\w.+@-])", re.M
)  # of another machine
TITLE = "# On the GPU"  # of the page, by which an older one is known


def spread(value: dict[str, float] | None, form: str) -> str:
    """Median and range."""
    if not value:
        return NONE
    return f"{value['median']:{form}} ({value['least']:{form}} to {value['most']:{form}})"


def bench_rows(record: dict[str, Any]) -> Iterator[list[str]]:
    """The table of one `transfg bench`: subject, batch, seconds, ratio, memory, ratio, speed."""
    for one in record["measurements"]:
        told = one["summary"]
        if one["failed"]:
            yield [one["subject"], str(one["batch"]), one["failed"], *[NONE] * 6]
            continue
        yield [
            one["subject"],
            str(one["batch"]),
            spread(told["seconds"], ".4f"),
            spread(told["ratio"], ".2f"),
            number(one["peak"], ".0f", 2**20),
            number(told["memory_ratio"], ".2f"),
            number(told["images_per_second"], ".1f"),
            number(told["utilisation"], ".1%"),
            number(one["first"], ".1f"),
        ]


def parity_rows(record: dict[str, Any]) -> Iterator[list[str]]:
    """The worst tap of each comparison: pair, precision, stage, taps, verdict, tap and numbers."""
    for stage in record["stages"]:
        numbers = [number(stage[name]) for name in ("error", "bound", "ratio")]
        place = [f"{stage['case']} {stage['tap']}", *numbers]
        taps = [str(stage["taps"]), stage["verdict"]]
        yield [stage["pair"], stage["precision"], stage["stage"], *taps, *place]


def accuracy_rows(record: dict[str, Any]) -> Iterator[list[str]]:
    """Both sides' accuracies, and the verdicts: of these checkpoints, and of this training."""
    for name in ("baseline", "candidate"):
        side = record[name]
        accuracies = ", ".join(number(100 * x, ".2f") for x in side["accuracies"])
        yield [name, ", ".join(sorted(set(side["backends"]))), accuracies, NONE, NONE]
    for name, what in (("images", "these checkpoints"), ("seeds", "this training")):
        found = record.get(name)
        if found:
            low, high = (number(100 * x, "+.2f") for x in found["interval"])
            gap = number(100 * found["difference"], "+.2f")
            yield [what, NONE, gap, f"{low} .. {high}", found["verdict"]]


def section(markdown: str, title: str) -> str:
    """The text below one heading of a page; nothing where it is missing."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", markdown, re.M | re.S)
    return found[1].strip() if found else ""


def read(path: Path) -> Any:
    """JSON of the stages.

    Raises:
        SystemExit: it is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        sys.exit(f"error: {path}: {error}")


def findings(folder: Path) -> dict[str, list[Any]]:
    """What the files of a stage say, by kind."""
    found: dict[str, list[Any]] = {"parity": [], "bench": [], "accuracy": [], "pages": []}
    for path in sorted(folder.rglob("*.json")):
        name, record = str(path.relative_to(folder)), read(path)
        if not isinstance(record, dict):
            continue
        if record.get("format") == "parity-report/2":
            found["parity"].append((name, record, list(parity_rows(record))))
        elif record.get("format") == "bench/1":
            facts = (one["device"].get("device") for one in record["measurements"])
            where = next((device for device in facts if device), "an unknown device")
            found["bench"].append((name, record, where, list(bench_rows(record))))
        elif "margin" in record and "baseline" in record:
            found["accuracy"].append((name, record, list(accuracy_rows(record))))
    for path in sorted(folder.rglob("report.md")):
        text = path.read_text(encoding="utf-8")
        parts = [(title, section(text, title)) for title in ("Results", "Over seeds")]
        found["pages"].append((str(path.parent.relative_to(folder)), parts))
    return found


def keep(folder: Path, target: Path) -> None:
    """Copy what is small and to be read; a parity.json without its rows."""
    for path in sorted({path for pattern in KEPT for path in folder.rglob(pattern)}):
        place = target / path.relative_to(folder)
        if path.name == "parity.json":
            place.parent.mkdir(parents=True, exist_ok=True)
            small = {key: value for key, value in read(path).items() if key != "rows"}
            place.write_text(FOLDERS.sub("", json.dumps(small, indent=1)), encoding="utf-8")
        elif path.stat().st_size <= LARGEST:
            place.parent.mkdir(parents=True, exist_ok=True)
            text = path.read_text(encoding="utf-8", errors="replace")
            place.write_text(FOLDERS.sub("", text), encoding="utf-8")


def main() -> None:
    """Write the folder anew."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("stages", type=Path, help="OUT of tools/gpu/unattended.py")
    parser.add_argument("out", type=Path, help="folder of the report; what is in it is replaced")
    parser.add_argument("--commands", type=Path, default=ROOT / "tools/gpu/stages.yaml")
    args = parser.parse_args()
    summary = args.stages / "summary.json"
    if not summary.is_file():
        sys.exit(f"error: {summary}: not there; expected the OUT of tools/gpu/unattended.py")
    page = args.out / "README.md"
    if args.out.exists() and not (page.is_file() and page.read_text().startswith(TITLE)):
        sys.exit(f"error: {args.out}: holds something else than such a report; name a new folder")
    listed = yaml.safe_load(args.commands.read_text(encoding="utf-8"))
    commands = {stage["name"]: stage["command"].strip() for stage in listed}
    temporary = args.out.with_name(f"{args.out.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    pages = []
    with tempfile.TemporaryDirectory() as unpacked:
        for stage in read(summary):
            folder, archive = Path(unpacked, stage["name"]), args.stages / f"{stage['name']}.tar.gz"
            if archive.is_file():
                with tarfile.open(archive) as packed:
                    packed.extractall(unpacked, filter="data")
            log = folder / "log.txt"
            lines = (
                log.read_text(encoding="utf-8", errors="replace").splitlines()
                if log.is_file()
                else []
            )
            told = (
                lines if stage["name"] == "doctor" else lines[-(TAIL if stage["status"] else 1) :]
            )
            page = {"command": commands.get(stage["name"], ""), "log": told, **stage}
            pages.append(page | findings(folder))
            keep(folder, temporary / stage["name"])
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    text = FOLDERS.sub("", environment.get_template("report.md.j2").render(stages=pages))
    (temporary / "README.md").write_text(text, encoding="utf-8")
    shutil.rmtree(args.out, ignore_errors=True)
    temporary.rename(args.out)
    print(f"{args.out}/README.md: {len(pages)} stages")


if __name__ == "__main__":
    main()
