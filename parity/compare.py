"""Where two traces differ, in NumPy alone.

Relative L2 over a whole tap, not elementwise bounds: rounding errors scale with the size of the
row, so elements near zero differ by any ratio without a fault.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from transfg_core.backend import Array, Arrays

FOLDER = Path(__file__).parent
ROUNDING = 2.0**-24  # unit roundoff of float32


@dataclass(frozen=True)
class Verdict:
    """The worst tap of one rung of one case; `value` is relative to `bound`'s measure."""

    rung: str
    case: str
    pair: str
    worst_tap: str
    value: float
    bound: float
    verdict: str
    taps: int

    def row(self) -> dict[str, Any]:
        """As parity.json holds it."""
        return asdict(self)


def load_tolerances() -> dict[str, dict[str, float]]:
    """Bounds by suite and rung; `exact` is 0."""
    stored = yaml.safe_load((FOLDER / "tolerances.yaml").read_text(encoding="utf-8"))
    return {
        suite: {rung: 0.0 if bound == "exact" else float(bound) for rung, bound in rungs.items()}
        for suite, rungs in stored.items()
    }


@cache
def load_differences() -> list[dict[str, Any]]:
    """The documented differences."""
    entries = yaml.safe_load((FOLDER / "differences.yaml").read_text(encoding="utf-8"))
    assert isinstance(entries, list)
    return entries


def allowance(case: str, rung: str, tap: str, differences: list[dict[str, Any]]) -> float | None:
    """The absolute difference that a documented entry allows this tap; None: no entry does."""
    for entry in differences:
        allow = entry.get("allow")
        if allow and case in allow["cases"] and rung in allow["rungs"]:
            if any(fnmatchcase(tap, pattern) for pattern in allow["taps"]):
                return float(allow["absolute"])
    return None


def comparable(value: Array, reference: Array) -> bool:
    """Same shape and type, and every number finite.

    No tap may be anything else: two runs that have both diverged do not agree.
    """
    if value.shape != reference.shape or value.dtype != reference.dtype:
        return False
    return bool(np.isfinite(value).all() and np.isfinite(reference).all())


def distance(value: Array, reference: Array) -> float:
    """|value - reference| / |reference|; infinite where they cannot be compared.

    Integers (part indices) must be equal: 0 or infinite.
    """
    if not comparable(value, reference):
        return np.inf
    if reference.dtype.kind in "iub":
        return 0.0 if np.array_equal(value, reference) else np.inf
    a, b = value.astype(np.float64), reference.astype(np.float64)
    difference = float(np.linalg.norm(a - b))
    return 0.0 if difference == 0 else difference / max(float(np.linalg.norm(b)), 1e-30)


def largest_gap(value: Array, reference: Array) -> float:
    """Largest absolute difference of two elements; infinite where they cannot be compared."""
    if not comparable(value, reference):
        return np.inf
    return float(np.abs(value.astype(np.float64) - reference.astype(np.float64)).max())


def structural_zero(name: str, trace: Mapping[str, Array], reference: Mapping[str, Array]) -> bool:
    """Whether a key-bias tap is the zero it should be, in both traces.

    The gradient of a key bias is zero by softmax's invariance to shifts; what is computed is noise
    whose ratio means nothing. It must be small beside its sibling, the query bias.
    """
    if ".attn.key.bias" not in name or not comparable(trace[name], reference[name]):
        return False
    sibling = float(np.linalg.norm(reference[name.replace(".key.", ".query.")]))
    sizes = (float(np.linalg.norm(one[name])) for one in (trace, reference))
    return all(size <= 32 * ROUNDING * sibling for size in sizes)


def compare_rung(
    trace: Arrays, reference: Arrays, rung: str, case: str, pair: str, bound: float
) -> Verdict:
    """The worst tap of a rung. A tap that only one trace has, or an empty rung, differs."""
    differences = load_differences()
    worst, value = "", -1.0
    absent = sorted(set(trace) ^ set(reference))
    if absent or not reference:
        worst, value = absent[0] if absent else "no taps", np.inf
    for name in reference if not absent else []:
        found = distance(trace[name], reference[name])
        allowed = allowance(case, rung, name, differences)
        if allowed is not None and largest_gap(trace[name], reference[name]) <= allowed:
            continue
        if found > bound and structural_zero(name, trace, reference):
            continue
        if found > value:
            worst, value = name, found
    verdict = "agree" if value <= bound else "differ"
    return Verdict(rung, case, pair, worst, float(value), bound, verdict, len(reference))


def rung_of(trace: Mapping[str, Array], rung: str) -> Arrays:
    """The taps of one rung, without its name."""
    prefix = f"{rung}/"
    return {key[len(prefix) :]: value for key, value in trace.items() if key.startswith(prefix)}
