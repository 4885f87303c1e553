"""Medians, ranges and ratios of measurements, as a table and as JSON."""

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
from transfg_core.params.groups import learned_shapes
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
        """The spread of the values; None if there are none."""
        return cls(median(values), min(values), max(values)) if values else None

    def text(self, form: str) -> str:
        """Text in the form `median (least to most)`."""
        return f"{self.median:{form}} ({self.least:{form}} to {self.most:{form}})"


def ratio(candidate: Measurement, baseline: Measurement) -> Spread | None:
    """Candidate's time over the baseline's, round by round: other load slows both in a round."""
    pairs = zip(candidate.seconds, baseline.seconds, strict=False)
    return Spread.of([ours / theirs for ours, theirs in pairs])


def input_summary(result: Measurement, baseline: Measurement) -> dict[str, Spread | None]:
    """Images per second, and per second of one core; both also over those of the baseline."""
    pairs = zip(result.cpu, baseline.cpu, strict=False)
    times = zip(result.seconds, baseline.seconds, strict=False)
    return {
        "images_per_second": Spread.of([result.batch / s for s in result.seconds]),
        "faster": Spread.of([theirs / ours for ours, theirs in times]),
        "images_per_core_second": Spread.of([result.batch / s for s in result.cpu if s]),
        "faster_per_core": Spread.of([theirs / ours for ours, theirs in pairs if ours]),
    }


def summary(result: Measurement, baseline: Measurement) -> dict[str, Any]:
    """The derived numbers of one measurement, for the table and the JSON; unknown ones are None."""
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
        "ratio": ratio(result, baseline),
        "images_per_second": result.batch / times.median if times else None,
        "memory_ratio": memory_ratio(result, baseline),
        "flops": flops,
        "selection_flops": image and result.batch * image,
        "flops_per_second": speed,
        "utilisation": speed / peak if speed and peak else None,
        "input": input_summary(result, baseline) if result.work == "input" else None,
        "memory": {**state, "rest": max(0, result.peak - sum(state.values()))}
        if state and result.peak
        else None,
    }


def memory_ratio(candidate: Measurement, baseline: Measurement) -> float | None:
    """The candidate's peak memory over the baseline's; None if a peak is unknown."""
    return candidate.peak / baseline.peak if candidate.peak and baseline.peak else None


def state_bytes(config: Config) -> dict[str, int]:
    """Bytes that every training step needs for parameters, gradients and optimiser state."""
    size = 8 if config.run.precision == "float64" else 4
    shapes = learned_shapes(config)
    params = size * sum(int(np.prod(shape)) for shape in shapes.values())
    slots = 1 if config.optim.name == "sgd" else 2
    return {"parameters": params, "gradients": params, "optimiser": slots * params}


def linearity(results: Sequence[Measurement], least: int = 4) -> dict[str, dict[int, float]]:
    """Relative deviation of the time per image from that of the smallest batch, by subject.

    Batches smaller than `least` are left out.
    """
    deviations: dict[str, dict[int, float]] = {}
    by_subject: dict[str, list[Measurement]] = {}
    for result in results:
        if result.seconds and result.batch >= least:
            by_subject.setdefault(result.subject, []).append(result)
    for subject, members in by_subject.items():
        smallest, *larger = sorted(members, key=lambda member: member.batch)
        unit = median(smallest.seconds) / smallest.batch
        deviations[subject] = {
            member.batch: median(member.seconds) / member.batch / unit - 1 for member in larger
        }
    return deviations


def as_record(results: Sequence[Measurement], baselines: Sequence[Measurement]) -> dict[str, Any]:
    """All measurements and the numbers derived from them, for JSON."""
    rows = []
    for result, baseline in zip(results, baselines, strict=True):
        numbers = _plain(summary(result, baseline))
        rows.append(asdict(result) | {"summary": numbers | {"baseline": baseline.subject}})
    return {"format": "bench/1", "measurements": rows, "linearity": linearity(results)}


def _plain(numbers: dict[str, Any]) -> dict[str, Any]:
    """The numbers with dictionaries in place of spreads."""
    return {
        name: asdict(value)
        if isinstance(value, Spread)
        else _plain(value)
        if isinstance(value, dict)
        else value
        for name, value in numbers.items()
    }


def print_input_table(results: Sequence[Measurement], baselines: Sequence[Measurement]) -> None:
    """Print images per second, and per second of processor time, beside those of the first row."""
    table = Table("subject", "batch", "images/s", "ratio", "images/s per core", "ratio per core")
    table.add_column("peak MiB", justify="right")
    for result, baseline in zip(results, baselines, strict=True):
        if result.failed:
            table.add_row(result.subject, str(result.batch), result.failed)
            continue
        forms = (".1f", ".2f", ".1f", ".2f")
        spreads = input_summary(result, baseline).values()
        cells = [s.text(form) if s else NONE for s, form in zip(spreads, forms, strict=True)]
        peak = number(result.peak, ".0f", MIB)
        table.add_row(result.subject, str(result.batch), *cells, peak)
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def print_table(results: Sequence[Measurement], baselines: Sequence[Measurement]) -> None:
    """Print one row for each measurement; ratios refer to the first subject of its batch size."""
    table = Table("subject", "work", "batch", "seconds", "ratio", "images/s", "peak MiB", "ratio")
    table.add_column("first s")
    table.add_column("GFLOP/s")
    table.add_column("of peak")
    for column in table.columns[2:]:
        column.justify = "right"
    for result, baseline in zip(results, baselines, strict=True):
        if result.failed:
            table.add_row(result.subject, result.work, str(result.batch), result.failed)
            continue
        numbers = summary(result, baseline)
        table.add_row(
            result.subject,
            result.work,
            str(result.batch),
            numbers["seconds"].text(".4g"),
            numbers["ratio"].text(".2f") if numbers["ratio"] else NONE,
            number(numbers["images_per_second"]),
            number(result.peak, ".0f", MIB),
            number(numbers["memory_ratio"], ".2f"),
            number(result.first),
            number(numbers["flops_per_second"], ".0f", 1e9),
            number(numbers["utilisation"], ".1%"),
        )
    Console(width=None if sys.stdout.isatty() else 160).print(table)
