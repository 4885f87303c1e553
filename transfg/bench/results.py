"""Medians, spreads and ratios of measurements; as a table and as JSON."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from transfg.bench.flops import peak_flops, selection_flops, step_flops
from transfg.bench.runner import Measurement
from transfg_core.config.sections import Config
from transfg_core.models.layout import param_shapes
from transfg_core.report.numbers import NONE, number

MIB = 2**20


@dataclass(frozen=True)
class Spread:
    """Median and range."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread | None":
        """Of at least one number."""
        return cls(median(values), min(values), max(values)) if values else None

    def text(self, form: str) -> str:
        """`median (least to most)`."""
        return f"{self.median:{form}} ({self.least:{form}} to {self.most:{form}})"


def ratio(one: Measurement, other: Measurement) -> Spread | None:
    """Time of `one` in units of `other`'s, round by round: what slows a round slows both."""
    pairs = zip(one.seconds, other.seconds, strict=False)
    return Spread.of([ours / theirs for ours, theirs in pairs])


def summary(result: Measurement, reference: Measurement) -> dict[str, Any]:
    """What the table and the JSON tell of one measurement; None where nothing is known."""
    config = Config.model_validate(result.config, strict=False)
    times = Spread.of(result.seconds)
    flops = step_flops(config, result.work)
    device = str(result.device.get("device", ""))
    peak = peak_flops(device, config.run.precision)
    speed = flops / times.median if flops and times else None
    state = state_bytes(config) if result.work == "train" else None
    image = selection_flops(config) if flops and result.method != "published" else None
    return {
        "seconds": times,
        "ratio": ratio(result, reference),
        "images_per_second": result.batch / times.median if times else None,
        "memory_ratio": memory_ratio(result, reference),
        "flops": flops,
        "selection_flops": image and result.batch * image,
        "flops_per_second": speed,
        "utilisation": speed / peak if speed and peak else None,
        "memory": {**state, "rest": max(0, result.peak - sum(state.values()))}
        if state and result.peak
        else None,
    }


def memory_ratio(one: Measurement, other: Measurement) -> float | None:
    """Of the peaks, where both came so far as to tell theirs."""
    return one.peak / other.peak if one.peak and other.peak else None


def state_bytes(config: Config) -> dict[str, int]:
    """Bytes of what a training step must hold whatever it computes with."""
    size = 8 if config.run.precision == "float64" else 4
    shapes = param_shapes(config.model, config.data.crop)
    params = size * sum(int(np.prod(shape)) for shape in shapes.values())
    slots = 1 if config.optim.name == "sgd" else 2
    return {"parameters": params, "gradients": params, "optimiser": slots * params}


def linearity(results: Sequence[Measurement], least: int = 4) -> dict[str, dict[int, float]]:
    """By subject: how far each batch's time per image is from that of batch `least` or the
    smallest above it, as a fraction."""
    found: dict[str, dict[int, float]] = {}
    by_subject: dict[str, list[Measurement]] = {}
    for one in results:
        if one.seconds and one.batch >= least:
            by_subject.setdefault(one.subject, []).append(one)
    for subject, members in by_subject.items():
        first, *others = sorted(members, key=lambda one: one.batch)
        unit = median(first.seconds) / first.batch
        found[subject] = {x.batch: median(x.seconds) / x.batch / unit - 1 for x in others}
    return found


def as_record(results: Sequence[Measurement], references: Sequence[Measurement]) -> dict[str, Any]:
    """As JSON holds it: every measurement, and every number that was derived."""
    rows = []
    for result, reference in zip(results, references, strict=True):
        told = {
            k: asdict(v) if isinstance(v, Spread) else v
            for k, v in summary(result, reference).items()
        }
        rows.append(asdict(result) | {"summary": told | {"reference": reference.subject}})
    return {"format": "bench/1", "measurements": rows, "linearity": linearity(results)}


def print_table(results: Sequence[Measurement], references: Sequence[Measurement]) -> None:
    """One line for each measurement, ratios to the first subject of its batch."""
    table = Table("subject", "work", "batch", "seconds", "ratio", "images/s", "peak MiB", "ratio")
    table.add_column("first s")
    table.add_column("GFLOP/s")
    table.add_column("of peak")
    for column in table.columns[2:]:
        column.justify = "right"
    for result, reference in zip(results, references, strict=True):
        if result.failed:
            table.add_row(result.subject, result.work, str(result.batch), result.failed)
            continue
        told = summary(result, reference)
        table.add_row(
            result.subject,
            result.work,
            str(result.batch),
            told["seconds"].text(".4g"),
            told["ratio"].text(".2f") if told["ratio"] else NONE,
            number(told["images_per_second"]),
            number(result.peak, ".0f", MIB),
            number(told["memory_ratio"], ".2f"),
            number(result.first),
            number(told["flops_per_second"], ".0f", 1e9),
            number(told["utilisation"], ".1%"),
        )
    Console(width=None if sys.stdout.isatty() else 160).print(table)
