"""Turn the output of the stages (tools/gpu/unattended.py) into a report folder.

    python tools/gpu/report.py OUT docs/gpu-report

For each stage, the folder's README.md shows its command, how it ended and its results: verdict and
worst taps of the suite, tables of times and memory, accuracies with their verdict. Every number on
the page is read from a file of the stages. These files lie next to the page; parity.json is stored
without its thousands of rows. Absolute paths are cut to their last name. The script needs this
project to be installed, Jinja2 and PyYAML.
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
TAIL = 12  # lines that are shown of the log of a failed stage
KEPT = ("*.txt", "*.json", "*.svg", "*.md", "*.html", "*.csv", "*.yaml", "*.jsonl")
LARGEST = 2 * 2**20  # bytes; larger files are not copied
FOLDERS = re.compile(
    r"(?:(?<=[\s\"'(>=])|^)/(?:[\w.+@-]+/)+(?=[\w.+@-])", re.M
)  # of another machine
TITLE = "# On the GPU"  # first line of the page; identifies an earlier report


def spread(value: dict[str, float] | None, form: str) -> str:
    """Median and range."""
    if not value:
        return NONE
    return f"{value['median']:{form}} ({value['least']:{form}} to {value['most']:{form}})"


def bench_rows(record: dict[str, Any]) -> Iterator[list[str]]:
    """The table of one `transfg bench`: subject, batch, seconds, ratio, memory, ratio, speed."""
    for row in record["measurements"]:
        summary = row["summary"]
        if row["failed"]:
            yield [row["subject"], str(row["batch"]), row["failed"], *[NONE] * 6]
            continue
        yield [
            row["subject"],
            str(row["batch"]),
            spread(summary["seconds"], ".4f"),
            spread(summary["ratio"], ".2f"),
            number(row["peak"], ".0f", 2**20),
            number(summary["memory_ratio"], ".2f"),
            number(summary["images_per_second"], ".1f"),
            number(summary["utilisation"], ".1%"),
            number(row["first"], ".1f"),
        ]


def parity_rows(record: dict[str, Any]) -> Iterator[list[str]]:
    """The worst tap of each comparison: pair, precision, stage, taps, verdict, tap and numbers."""
    for stage in record["stages"]:
        numbers = [number(stage[name]) for name in ("error", "bound", "ratio")]
        place = [f"{stage['case']} {stage['tap']}", *numbers]
        taps = [str(stage["taps"]), stage["verdict"]]
        yield [stage["pair"], stage["precision"], stage["stage"], *taps, *place]


def accuracy_rows(record: dict[str, Any]) -> Iterator[list[str]]:
    """Both sides' accuracies, and the verdicts: on these checkpoints, and on this training."""
    for name in ("baseline", "candidate"):
        side = record[name]
        accuracies = ", ".join(number(100 * x, ".2f") for x in side["accuracies"])
        yield [name, ", ".join(sorted(set(side["backends"]))), accuracies, NONE, NONE]
    for name, what in (("images", "these checkpoints"), ("seeds", "this training")):
        result = record.get(name)
        if result:
            low, high = (number(100 * x, "+.2f") for x in result["interval"])
            gap = number(100 * result["difference"], "+.2f")
            yield [what, NONE, gap, f"{low} .. {high}", result["verdict"]]


def section(markdown: str, title: str) -> str:
    """The text below one heading of a page; empty if the heading is missing."""
    match = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", markdown, re.M | re.S)
    return match[1].strip() if match else ""


def read(path: Path) -> Any:
    """A JSON file of the stages.

    Raises:
        SystemExit: the file cannot be read, or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        sys.exit(f"error: {path}: {error}")


def findings(folder: Path) -> dict[str, list[Any]]:
    """The results in the files of a stage, by kind."""
    results: dict[str, list[Any]] = {"parity": [], "bench": [], "accuracy": [], "pages": []}
    for path in sorted(folder.rglob("*.json")):
        name, record = str(path.relative_to(folder)), read(path)
        if not isinstance(record, dict):
            continue
        if record.get("format") == "parity-report/3":
            results["parity"].append((name, record, list(parity_rows(record))))
        elif record.get("format") == "bench/1":
            devices = (row["device"].get("device") for row in record["measurements"])
            device = next((name for name in devices if name), "an unknown device")
            results["bench"].append((name, record, device, list(bench_rows(record))))
        elif "margin" in record and "baseline" in record:
            results["accuracy"].append((name, record, list(accuracy_rows(record))))
    for path in sorted(folder.rglob("report.md")):
        text = path.read_text(encoding="utf-8")
        parts = [(title, section(text, title)) for title in ("Results", "Over seeds")]
        results["pages"].append((str(path.parent.relative_to(folder)), parts))
    return results


def keep(folder: Path, target: Path) -> None:
    """Copy small readable files; parity.json without its rows."""
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
    """Write the report folder; replace an earlier report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("stages", type=Path, help="the OUT folder of tools/gpu/unattended.py")
    parser.add_argument("out", type=Path, help="folder of the report; replaces an earlier one")
    parser.add_argument("--commands", type=Path, default=ROOT / "tools/gpu/stages.yaml")
    args = parser.parse_args()
    summary = args.stages / "summary.json"
    if not summary.is_file():
        sys.exit(f"error: {summary}: no such file; expected the OUT of tools/gpu/unattended.py")
    readme = args.out / "README.md"
    if args.out.exists() and not (readme.is_file() and readme.read_text().startswith(TITLE)):
        sys.exit(f"error: {args.out}: holds something other than a report; name a new folder")
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
            shown = (
                lines if stage["name"] == "doctor" else lines[-(TAIL if stage["status"] else 1) :]
            )
            page = {"command": commands.get(stage["name"], ""), "log": shown, **stage}
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
