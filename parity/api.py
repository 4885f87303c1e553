"""The parity tools for any pair of models: record in any framework, compare with NumPy.

    from parity import compare, record_taps, ulp_variant

    record_taps("a.npz", {"forward/logits": logits}, weights=weights, inputs=inputs, ...)
    rows = compare(["a.npz", "b.npz", "a-float64.npz", "a-ulp1.npz", "a-ulp2.npz"])

The manifests say which role each trace has (`find_evidence`). docs/parity.md is the manual;
examples/parity_convnet compares a pair of models in this way.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from parity.comparison.evidence import find_evidence
from parity.comparison.judge import NOT_JUDGED, judge, one_sided_taps
from parity.comparison.measure import ROUNDOFF, move_by_ulp
from parity.comparison.settling import settle_precision
from parity.comparison.sketch import Array
from parity.comparison.subject import array_facts
from parity.comparison.trace import Trace, environment, read_trace, write_trace
from parity.comparison.verdict import EXIT_CODES, Comparison, OneSided, Row, worst
from parity.errors import ParityError
from parity.matching.declared import Declared, read_declared
from parity.matching.telling import found_lines
from parity.matching.traces import align_traces, find_layouts

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
    kinks: Mapping[str, Mapping[str, Any]] | None = None,
    operations: Mapping[str, Mapping[str, Any]] | None = None,
    layouts: Mapping[str, str] | None = None,
    branch: str | None = None,
    sketch_above: int | None = None,
    full: Collection[str] = (),
) -> None:
    """Write a trace with its manifest.

    Args:
        taps: arrays by `stage/tap` in data order: `forward/conv1`, `gradients/conv1.weight`.
        weights, inputs: the arrays that this computation starts from, by any names. Pass the same
            arrays for every recording, also for a variant or in float64. The trace stores only
            their digests.
        settings: everything else that decides the function: sizes, epsilon, reduction of the loss.
        framework, version, device, threads: who computed it, and where.
        precision: of the arithmetic: float64, float32, tf32, float16 or bfloat16.
        variant: how this recording was perturbed, such as `ulp:1`; None if it was not.
        case: a name for tables.
        zeros: tap whose true value is zero -> sibling tap that gives the scale. Example: the
            gradient of a bias before a batch norm -> the gradient of the norm's own bias.
        terms: tap whose numbers are long sums -> how many terms each sum has. Example: the
            gradient of a bias -> batch size times positions. The bound then allows for sums that
            are computed one term after another.
        kinks: tap of a choice -> `kind` (such as relu), `input` (the tap that it was made from),
            `corners` and `settings`.
        operations: tap -> what computed it: `operation`, `reads` (taps), `params` (names of
            parameters), `settings`, `module` (the class), `source` (file:line).
        layouts: part of the recording -> its order of axes, such as `activations: channels last`.
        branch: digest of the choices that this recording used, if they were given to it.
        sketch_above, full: as in `write_trace`.

    Raises:
        ParityError: a name, a type or the precision is not allowed, or the folder does not exist.
    """
    if precision not in ROUNDOFF:
        raise ParityError(f"{path}: precision {precision!r}: expected one of {', '.join(ROUNDOFF)}")
    facts = Facts(zeros or {}, terms or {}, kinks or {}, operations or {}, layouts or {})
    _refuse_taps(path, taps, precision)
    _refuse_facts(path, facts, taps)
    producer = {"name": framework, "version": version, "device": device, "threads": threads}
    manifest = {
        "producer": producer | environment(),
        "precision": precision,
        "variant": variant,
        "case": case,
        "branch": branch,
        "subject": {
            "weights": array_facts(weights),
            "inputs": array_facts(inputs),
            "settings": dict(settings),
        },
    }
    write_trace(path, taps, manifest | facts._asdict(), sketch_above, full=full)


class Facts(NamedTuple):
    """The tables of a manifest that are about taps by name."""

    zeros: Mapping[str, str]
    terms: Mapping[str, int]
    kinks: Mapping[str, Mapping[str, Any]]
    operations: Mapping[str, Mapping[str, Any]]
    layouts: Mapping[str, str]


def _refuse_taps(path: Path | str, taps: Mapping[str, Array], precision: str) -> None:
    """Refuse a tap with a name or a type that a trace cannot have."""
    for name, value in taps.items():
        if not NAME.fullmatch(name):
            raise ParityError(f"{path}: tap {name!r}: expected stage/tap, such as forward/conv1")
        dtype = np.asarray(value).dtype
        if precision == "float64" and dtype.kind == "f" and dtype != np.float64:
            raise ParityError(
                f"{path}: precision float64, but tap {name} is {dtype}; the framework converted "
                "it; keep it in float64"
            )


def _refuse_facts(path: Path | str, facts: Facts, taps: Collection[str]) -> None:
    """Refuse facts about taps that the recording does not have."""
    inputs = [str(kink.get("input")) for kink in facts.kinks.values()]
    named = {
        "zeros": [*facts.zeros, *facts.zeros.values()],
        "kinks": [*facts.kinks, *inputs],
        "operations": list(facts.operations),
    }
    for key, names in named.items():
        for name in names:
            if name not in taps:
                raise ParityError(f"{path}: {key}: there is no tap {name}")
    for name, count in facts.terms.items():
        if name not in taps or type(count) is not int or count < 1:
            raise ParityError(
                f"{path}: terms: {name}: {count!r}: expected a tap and a whole number"
            )


def ulp_variant(
    weights: Mapping[str, Array], seed: int, precision: str = "float32"
) -> dict[str, Array]:
    """Weights with every floating-point number moved by one unit in the last place, up or down.

    For a float64 variant, pass the weights in float64. With `precision` tf32, bfloat16 or float16
    the unit is of that precision, because products would round a unit of float32 away. Arrays of
    integers and booleans stay as they are.
    """
    rng = np.random.default_rng([77, seed])
    moved = {}
    for name in sorted(weights):
        value = np.asarray(weights[name])
        moved[name] = move_by_ulp(value, rng, precision) if value.dtype.kind == "f" else value
    return {name: moved[name] for name in weights}


def compare(
    traces: Sequence[Trace | Path | str],
    mapping: Mapping[str, str] | Declared | None = None,
    siblings: Mapping[str, str] | None = None,
) -> list[Row]:
    """The verdict on every tap that both traces of a pair have; see `compare_traces`."""
    return compare_traces(traces, mapping, siblings).rows


def compare_traces(
    traces: Sequence[Trace | Path | str],
    mapping: Mapping[str, str] | Declared | None = None,
    siblings: Mapping[str, str] | None = None,
) -> Comparison:
    """The verdict on every tap that a pair of traces has in common, and the names of the others.

    Args:
        traces: the baseline, the candidate, then their evidence (`find_evidence`); each a file or
            a trace that was read.
        mapping: the candidate's tap names -> the baseline's, or names and layouts
            (`matching/declared.py`). What no pattern fits is matched by itself.
        siblings: further taps that are zero by structure, as in `Evidence`.

    Raises:
        ParityError: a file is not a whole trace, the traces are not of one computation, or a trace
            has no role.
    """
    loaded = [trace if isinstance(trace, Trace) else read_trace(trace) for trace in traces]
    places = [trace.path.resolve() for trace in loaded]
    for trace in loaded:
        if places.count(trace.path.resolve()) > 1:
            raise ParityError(
                f"{trace.path}: given twice; give different traces (each agrees with itself)"
            )
        if trace.manifest.get("kind", "case") != loaded[0].manifest.get("kind", "case"):
            raise ParityError(
                f"{trace.path} and {loaded[0].path}: recordings of different kinds; give traces "
                "of one kind"
            )
    declared = mapping if isinstance(mapping, Declared) else Declared(mapping or {})
    loaded, found = align_traces(loaded, declared)
    rows, one_sided = [], OneSided()
    for evidence in find_evidence(loaded, None, siblings):
        baseline, candidate = evidence.baseline.taps, evidence.candidate.taps
        if not set(baseline) & set(candidate):
            raise ParityError(
                f"{evidence.baseline.path} and {evidence.candidate.path} have no tap in common: "
                f"the first has {', '.join([*baseline][:2])}, the second "
                f"{', '.join([*candidate][:2])}; give a mapping of names"
            )
        rows += judge(evidence, NOT_JUDGED)
        one_sided += one_sided_taps(evidence, NOT_JUDGED)
    found = find_layouts(found, loaded[0], loaded[1], _different(rows))
    return Comparison(settle_precision(rows), one_sided, found)


def _different(rows: Sequence[Row]) -> list[str]:
    return [f"{row.stage}/{row.tap}" for row in rows if row.verdict == "different"]


def first_difference(rows: Sequence[Row]) -> str:
    """A sentence on the first `different` tap in data order; without one, on the first tap of the
    most severe verdict. Empty if all taps are equivalent."""
    verdict = worst([row.verdict for row in rows])
    if verdict in ("equivalent", "vacuous"):
        return ""
    for row in rows:
        if row.verdict == verdict:
            facts = [f"error {row.error:.2g}, bound {row.bound:.2g}"]
            if row.values:
                facts.append(f"at {row.index} it is {row.values[0]:.7g}, not {row.values[1]:.7g}")
            if row.reason:
                facts.insert(0, row.reason)
            place = f"{row.stage}/{row.tap} in {row.precision}"
            return f"first {verdict}: {place}: {'; '.join(facts)}"
    return ""


def pair_labels(traces: Sequence[Trace]) -> tuple[str, str]:
    """Names of baseline and candidate for people: of their frameworks, or of their files."""
    baseline, candidate = traces[:2]
    labels = str(baseline.producer("name")), str(candidate.producer("name"))
    return labels if len(set(labels)) == 2 else (baseline.path.stem, candidate.path.stem)


def compare_files(
    paths: Sequence[Path],
    names: Path | None = None,
    out: Path | None = None,
    siblings: Mapping[str, str] | None = None,
) -> int:
    """Compare trace files, print the table, and write the reports into `out` if that is given.

    Returns the exit code: 0 equivalent, 1 different, 2 undecided, 3 less precise.

    Raises:
        ParityError: as in `compare`; its exit code is 2.
    """
    from parity.report.console import one_sided_lines, print_table
    from parity.report.files import write_reports  # imported here: recording does not need rich

    traces = [read_trace(path) for path in paths]
    comparison = compare_traces(traces, read_declared(names) if names else None, siblings)
    rows = comparison.rows
    print_table(rows)
    for line in one_sided_lines(comparison.one_sided, pair_labels(traces)):
        print(line)
    for line in found_lines(comparison.found):
        print(line)
    if sentence := first_difference(rows):
        print(sentence)
    if out:
        facts = [trace.manifest["producer"] for trace in traces[:2]]
        environment = dict(zip(pair_labels(traces), facts, strict=True))
        write_reports(out, rows, environment, one_sided=comparison.one_sided)
    return EXIT_CODES[comparison.verdict]
