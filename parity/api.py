"""The parity tools for anybody's pair of models: record in any framework, compare with NumPy.

    from parity import compare, record_taps, ulp_variant

    record_taps("a.npz", {"forward/logits": logits}, weights=weights, inputs=inputs, ...)
    rows = compare(["a.npz", "b.npz", "a-float64.npz", "a-ulp1.npz", "a-ulp2.npz"])

Which trace is what, their manifests say (`find_evidence`). docs/parity.md is the manual, and
examples/parity_convnet a pair of models that is compared in this way.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from parity.comparison.evidence import find_evidence, read_names
from parity.comparison.judge import NOT_JUDGED, judge
from parity.comparison.measure import ROUNDOFF, move_by_ulp
from parity.comparison.sketch import Array
from parity.comparison.trace import Trace, digest, environment, read_trace, write_trace
from parity.comparison.verdict import EXIT_CODES, Row, worst
from transfg_core.errors import UserError

NAME = re.compile(r"[^/>\s][^/>]*/[^>]+")  # `>` is the arrow of `siblings`


def record_taps(
    path: Path | str,
    taps: Mapping[str, Array],
    *,
    weights: Mapping[str, Array],
    inputs: Mapping[str, Array],
    settings: Mapping[str, Any],
    framework: str,
    version: str,
    precision: str,
    device: str,
    threads: int,
    variant: str | None = None,
    case: str = "",
    zeros: Mapping[str, str] | None = None,
    terms: Mapping[str, int] | None = None,
    sketch_above: int | None = None,
    full: Collection[str] = (),
) -> None:
    """Write a trace with its manifest.

    Args:
        taps: arrays by `stage/tap` in data order: `forward/conv1`, `gradients/conv1.weight`.
        weights, inputs: what every recording of this computation starts from, by any names; also
            for a variant and in float64 the very same arrays. Only their digests are stored.
        settings: whatever else decides the function: sizes, epsilon, reduction of the loss.
        framework, version, device, threads: who computed it, and where.
        precision: that of the arithmetic: float64, float32, tf32, float16 or bfloat16.
        variant: how this recording was perturbed, such as `ulp:1`; None if it was not.
        case: a name for tables.
        zeros: taps whose true value is zero -> a tap to see their size beside, such as the gradient
            of a bias before a batch norm -> that of the norm's own bias.
        terms: taps that are long sums -> how many numbers each of theirs adds up, such as the
            gradient of a bias -> batch size times positions. The bound then allows for a sum that
            is computed one by one.
        sketch_above, full: as of `write_trace`.

    Raises:
        UserError: a name, a type or the precision is unfit, or the folder does not exist.
    """
    if precision not in ROUNDOFF:
        raise UserError(f"{path}: precision {precision!r}: expected one of {', '.join(ROUNDOFF)}")
    for name in [*taps, *(zeros or {}).values()]:
        if not NAME.fullmatch(name):
            raise UserError(f"{path}: tap {name!r}: expected stage/tap, such as forward/conv1")
    for name in [n for pair in (zeros or {}).items() for n in pair if n not in taps]:
        raise UserError(f"{path}: zeros: there is no tap {name}")
    for name, count in (terms or {}).items():
        if name not in taps or type(count) is not int or count < 1:
            raise UserError(f"{path}: terms: {name}: {count!r}: expected a tap and a whole number")
    for name, value in taps.items():
        kind = np.asarray(value).dtype
        if precision == "float64" and kind.kind == "f" and kind != np.float64:
            raise UserError(
                f"{path}: precision float64, but tap {name} is {kind}; the framework converted it "
                "on the way"
            )
    producer = {"name": framework, "version": version, "device": device, "threads": threads}
    manifest = {
        "producer": producer | environment(),
        "precision": precision,
        "variant": variant,
        "case": case,
        "zeros": dict(zeros or {}),
        "terms": dict(terms or {}),
        "subject": {
            "weights": digest(weights),
            "inputs": digest(inputs),
            "settings": dict(settings),
        },
    }
    write_trace(path, taps, manifest, sketch_above, full=full)


def ulp_variant(
    weights: Mapping[str, Array], seed: int, precision: str = "float32"
) -> dict[str, Array]:
    """Weights with every floating-point number moved by one unit in the last place, up or down.

    In float64 give it the weights in float64. With `precision` tf32, bfloat16 or float16 the unit
    is of that, since products would round a unit of float32 away. Arrays of integers and booleans
    stay.
    """
    rng = np.random.default_rng([77, seed])
    moved = {}
    for name in sorted(weights):
        value = np.asarray(weights[name])
        moved[name] = move_by_ulp(value, rng, precision) if value.dtype.kind == "f" else value
    return {name: moved[name] for name in weights}


def compare(
    traces: Sequence[Trace | Path | str],
    mapping: Mapping[str, str] | None = None,
    siblings: Mapping[str, str] | None = None,
) -> list[Row]:
    """The verdict on every tap of a pair of traces; taps that only one has are `different`.

    Args:
        traces: the pair, then what it is judged by (`find_evidence`), as files or as read.
        mapping: tap names of the second producer's traces -> those of the first (`rename_taps`).
        siblings: further taps that are zero by structure, as of `Evidence`.

    Raises:
        UserError: a file is no whole trace, the traces are not of one computation, or one has no
            role.
    """
    loaded = [one if isinstance(one, Trace) else read_trace(one) for one in traces]
    places = [trace.path.resolve() for trace in loaded]
    for trace in loaded:
        if places.count(trace.path.resolve()) > 1:
            raise UserError(f"{trace.path}: given twice; a trace agrees with itself")
        if trace.manifest.get("kind", "case") != loaded[0].manifest.get("kind", "case"):
            raise UserError(f"{trace.path} and {loaded[0].path}: recordings of different kinds")
    rows = []
    for evidence in find_evidence(loaded, mapping, siblings):
        ours, theirs = evidence.baseline.taps, evidence.candidate.taps
        if not set(ours) & set(theirs):
            raise UserError(
                f"{evidence.baseline.path} and {evidence.candidate.path} have no tap in common, as "
                f"{', '.join([*ours][:2])} and {', '.join([*theirs][:2])}; give a mapping of names"
            )
        rows += judge(evidence, NOT_JUDGED)
    return rows


def first_difference(rows: Sequence[Row]) -> str:
    """Where it begins, as a sentence: the first tap in data order that is not equivalent."""
    for row in rows:
        if row.verdict != "equivalent":
            facts = [f"error {row.error:.2g}, bound {row.bound:.2g}"]
            if row.values:
                facts.append(f"at {row.index} it is {row.values[0]:.7g}, not {row.values[1]:.7g}")
            if row.reason:
                facts.insert(0, row.reason)
            return f"begins at {row.stage}/{row.tap} in {row.precision}: {'; '.join(facts)}"
    return ""


def compare_files(paths: Sequence[Path], names: Path | None = None, out: Path | None = None) -> int:
    """Compare trace files, print the table, and write the reports into a folder if one is given.

    Returns the exit code: 0 equivalent, 1 different, 2 undecided.

    Raises:
        UserError: as of `compare`; its exit code is 2.
    """
    from parity.report.console import print_table
    from parity.report.files import write_reports  # draws tables: no need to record

    traces = [read_trace(path) for path in paths]
    rows = compare(traces, read_names(names) if names else None)
    print_table(rows)
    if begin := first_difference(rows):
        print(begin)
    if out:
        pair = traces[:2]
        who = [str(trace.producer("name")) for trace in pair]
        if who[0] == who[1]:
            who = [trace.path.stem for trace in pair]
        facts = [trace.manifest["producer"] for trace in pair]
        write_reports(out, rows, dict(zip(who, facts, strict=True)))
    return EXIT_CODES[worst([row.verdict for row in rows])]
