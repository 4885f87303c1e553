"""`transfg models`."""

import csv
import io
import json
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import typer

from transfg.options import one_of

if TYPE_CHECKING:
    from transfg_core.catalogue import Entry

COLUMNS = ("model", "image", "parameters", "published", "GMACs", "published", "weights")
WORK = ("infer", "train")
UNITS = ("images_per_second", "peak_bytes")
MIB = 2**20
FOOT = (
    "GMACs: 10^9 multiply-adds of one image without part selection; many papers call them FLOPs.",
    "weights: public files that fit. "
    "`transfg models NAME` names them; docs/models.md explains differences from published numbers.",
)


def models(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="a model such as ViT-B/16, or how names begin: Swin", metavar="[NAME]"),
    ] = None,
    image: Annotated[
        int | None, typer.Option(min=1, help="side of the images, in place of the usual one")
    ] = None,
    measure: Annotated[
        str | None,
        typer.Option(
            help="infer or train: also measure images/s and peak memory here", metavar="W"
        ),
    ] = None,
    backend: Annotated[
        list[str] | None, typer.Option("--backend", "-b", help="what --measure measures")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="images in a batch of --measure (default 1)")
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="timed rounds of --measure (default 3)")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of --measure")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV instead of text.")] = False,
) -> None:
    """List every model: parameters, multiply-adds, public weights that fit; measure on request.

    With one name: all facts about this model.
    """
    from transfg_core.backend import BACKENDS
    from transfg_core.catalogue import find_entries
    from transfg_core.errors import UserError

    if as_json and as_csv:
        raise UserError("--json --csv: expected one form of output, found two; leave one out")
    if measure is not None:
        one_of("--measure", measure, WORK)
    else:
        own = {"--backend": backend, "--batch": batch, "--rounds": rounds, "--threads": threads}
        if given := [name for name, value in own.items() if value is not None]:
            raise UserError(
                f"{' '.join(given)}: expected --measure infer or train beside it, found none; "
                f"add it, or leave {given[0]} out"
            )
    backends = [one_of("--backend", name, tuple(BACKENDS)) for name in backend or BACKENDS]
    found = find_entries(tuple(names or ()))
    records = [record(entry, image) for entry in found]
    if measure is not None:
        for entry, row in zip(found, records, strict=True):
            row["measured"] = measured(
                entry, image, measure, backends, batch or 1, rounds or 3, threads
            )
    if as_json:
        print(json.dumps(records, indent=1, ensure_ascii=False))
    elif as_csv:
        print(as_table(records), end="")
    elif len(found) == 1 and names:
        print("\n".join(in_full(records[0])))
    else:
        print("\n".join(table(records)))


def record(entry: "Entry", image: int | None) -> dict[str, Any]:
    """A model's facts, for JSON."""
    return {
        "name": entry.name,
        "settings": dict(entry.model),
        "image": image or entry.image,
        "classes": entry.classes,
        "parameters": entry.parameters(image),
        "gmacs": round(entry.gmacs(image), 3),
        # published numbers hold for the usual image
        "published": [
            item.model_dump() for item in entry.published if image in (None, entry.image)
        ],
        "weights": [row.name for row in entry.weights()],
    }


def measured(
    entry: "Entry",
    image: int | None,
    work: str,
    backends: list[str],
    batch: int,
    rounds: int,
    threads: int | None,
) -> dict[str, dict[str, Any]]:
    """Dict: backend -> images per second, peak memory in bytes, and the reason of a failure.

    The backends take turns, as in `transfg bench`; the first round warms up.
    """
    from transfg.bench.runner import measure
    from transfg.bench.subject import parse_subject

    config = entry.config(image)
    train = config.train.model_copy(update={"batch_size": batch, "eval_batch_size": batch})
    config = config.model_copy(update={"train": train})
    subjects = [parse_subject(name) for name in backends]
    results = measure(subjects, work, [config] * len(subjects), rounds, 1, 1, threads)
    return {
        result.backend: {
            "work": work,
            "batch": batch,
            "images_per_second": batch / median(result.seconds) if result.seconds else None,
            "peak_bytes": result.peak,
            "failed": result.failed,
        }
        for result in results
    }


def most_precise(row: dict[str, Any], key: str) -> float | None:
    """The published number with the most digits, of those there are."""
    values = [item[key] for item in row["published"] if item[key] is not None]
    return max(values, key=lambda value: len(f"{value}".rstrip("0")), default=None)


def table(records: list[dict[str, Any]]) -> list[str]:
    """One line for each model, in columns."""
    from transfg_core.report.numbers import number

    backends = list(dict.fromkeys(name for row in records for name in row.get("measured", {})))
    rows = [[*COLUMNS, *(f"{name} {unit}" for name in backends for unit in ("images/s", "MiB"))]]
    for row in records:
        cells = [row["name"], str(row["image"]), number(row["parameters"], ".2f", 1e6) + " M"]
        cells.append(number(most_precise(row, "parameters"), ".2f", 1e6))
        cells += [number(row["gmacs"], ".2f"), number(most_precise(row, "gmacs"), ".2f")]
        cells.append(str(len(row["weights"])))
        for name in backends:
            result = row.get("measured", {}).get(name, {})
            cells.append(result.get("failed") or number(result.get("images_per_second")))
            cells.append(number(result.get("peak_bytes"), ".0f", MIB))
        rows.append(cells)
    widths = [max(len(cells[column]) for cells in rows) for column in range(len(rows[0]))]
    lines = []
    for cells in rows:
        first, *rest = (
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        lines.append("  ".join([first, *rest]).rstrip())
    return [*lines, "", *FOOT]


def in_full(row: dict[str, Any]) -> list[str]:
    """All facts about a model."""
    from transfg_core.report.numbers import number

    values = {key: str(value).replace(" ", "") for key, value in row["settings"].items()}
    facts = [
        ("settings", " ".join(f"model.{key}={value}" for key, value in values.items())),
        ("image", f"{row['image']} x {row['image']} pixels, {row['classes']} classes"),
        ("parameters", f"{row['parameters']:,}"),
        ("GMACs", f"{row['gmacs']:.3f}"),
    ]
    for item in row["published"]:
        numbers = []
        if item["parameters"] is not None:
            numbers.append(f"{number(item['parameters'], '.8g', 1e6)} M parameters")
        if item["gmacs"] is not None:
            numbers.append(f"{item['gmacs']} GMACs")
        text = f"{', '.join(numbers)}: {item['source']}"
        facts.append(("published", f"{text}; {item['note']}" if item["note"] else text))
    facts += [("weights", f"`transfg weights {name}`") for name in row["weights"]]
    for name, result in row.get("measured", {}).items():
        speed = f"{number(result['images_per_second'])} images/s"
        memory = f"{number(result['peak_bytes'], '.0f', MIB)} MiB"
        text = result["failed"] or f"{result['work']}, batch {result['batch']}: {speed}, {memory}"
        facts.append((name, text))
    return [row["name"], *(f"  {what:<12}{text}" for what, text in facts)]


def as_table(records: list[dict[str, Any]]) -> str:
    """CSV with one line for each model; published numbers are those with the most digits."""
    backends = list(dict.fromkeys(name for row in records for name in row.get("measured", {})))
    fields = ["name", "image", "parameters", "published_parameters", "gmacs", "published_gmacs"]
    fields += ["weights", *(f"{b}_{unit}" for b in backends for unit in UNITS)]
    text = io.StringIO()
    writer = csv.DictWriter(text, fields, lineterminator="\n")
    writer.writeheader()
    for row in records:
        line = {key: row[key] for key in ("name", "image", "parameters", "gmacs")}
        line |= {f"published_{key}": most_precise(row, key) for key in ("parameters", "gmacs")}
        line["weights"] = " ".join(row["weights"])
        for name, result in row.get("measured", {}).items():
            line |= {f"{name}_{unit}": result[unit] for unit in UNITS}
        writer.writerow(line)
    return text.getvalue()
