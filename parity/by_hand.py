"""Recording by hand: a program of any framework passes its NumPy arrays, and gets a trace.

    record_taps("a.npz", {"forward/logits": logits}, weights=weights, inputs=inputs, ...)

docs/parity.md is the manual; examples/parity_convnet records and compares a pair of models so.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from parity.comparison.measure import ROUNDOFF, move_by_ulp
from parity.comparison.modes import Branch
from parity.comparison.sketch import Array
from parity.comparison.subject import array_facts
from parity.comparison.trace import environment
from parity.comparison.writer import TraceWriter
from parity.errors import ParityError

NAME = re.compile(r"[^/>\s][^/>]*/[^>]+")  # `>` is the arrow of `siblings`


def record_taps(
    path: Path | str,
    taps: Mapping[str, Array] | Iterable[tuple[str, Array]],
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
    branch: Branch = None,
    sketch_above: int | None = None,
    full: Collection[str] = (),
) -> None:
    """Write a trace with its manifest.

    Args:
        taps: arrays by `stage/tap` in data order: `forward/conv1`, `gradients/conv1.weight`; or an
            iterator of pairs (name, array). Each array is written before the next one is asked for.
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
        branch: digest of the choices that this recording used, if they were given to it; or a
            table with those of the modes `evaluation` and `training`.
        sketch_above, full: as in `write_trace`.

    Raises:
        ParityError: a name, a type or the precision is not allowed, or the folder does not exist.
    """
    if precision not in ROUNDOFF:
        raise ParityError(f"{path}: precision {precision!r}: expected one of {', '.join(ROUNDOFF)}")
    facts = Facts(zeros or {}, terms or {}, kinks or {}, operations or {}, layouts or {})
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
    with TraceWriter(path, manifest | facts._asdict(), sketch_above, full=full) as writer:
        for name, value in taps.items() if isinstance(taps, Mapping) else taps:
            _refuse_tap(path, name, value, precision)
            writer.add(name, value)
        _refuse_facts(path, facts, writer.names)


class Facts(NamedTuple):
    """The tables of a manifest that are about taps by name."""

    zeros: Mapping[str, str]
    terms: Mapping[str, int]
    kinks: Mapping[str, Mapping[str, Any]]
    operations: Mapping[str, Mapping[str, Any]]
    layouts: Mapping[str, str]


def _refuse_tap(path: Path | str, name: str, value: Array, precision: str) -> None:
    """Refuse a tap with a name or a type that a trace cannot have."""
    if not NAME.fullmatch(name):
        raise ParityError(f"{path}: tap {name!r}: expected stage/tap, such as forward/conv1")
    dtype = np.asarray(value).dtype
    if precision == "float64" and dtype.kind == "f" and dtype != np.float64:
        raise ParityError(
            f"{path}: precision float64, but tap {name} is {dtype}; the framework converted it; "
            "keep it in float64"
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
