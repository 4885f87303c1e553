"""Proof that two implementations compute the same function.

Each implementation records a trace in its own process; NumPy compares the traces. The names below
work for any pair of models in any frameworks (docs/parity.md). This package imports no framework,
and it imports a module of its own only when that is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from parity.api import compare, compare_files, compare_traces
    from parity.by_hand import record_taps, ulp_variant
    from parity.comparison.evidence import find_evidence
    from parity.comparison.subject import array_facts, digest
    from parity.comparison.trace import Trace, read_trace
    from parity.comparison.verdict import Comparison, Evidence, OneSided, Row
    from parity.comparison.writer import TraceWriter, write_trace
    from parity.matching.declared import read_declared
    from parity.recording.draw import integers, normal, uniform
    from parity.recording.pair import Pair, Side

__version__ = "0.2.0.dev0"  # of the distribution `transfg-parity`
HOMES = {
    "compare": "api",
    "compare_files": "api",
    "compare_traces": "api",
    "record_taps": "by_hand",
    "ulp_variant": "by_hand",
    "Comparison": "comparison.verdict",
    "Evidence": "comparison.verdict",
    "OneSided": "comparison.verdict",
    "Row": "comparison.verdict",
    "find_evidence": "comparison.evidence",
    "Trace": "comparison.trace",
    "array_facts": "comparison.subject",
    "digest": "comparison.subject",
    "read_declared": "matching.declared",
    "read_trace": "comparison.trace",
    "TraceWriter": "comparison.writer",
    "write_trace": "comparison.writer",
    "integers": "recording.draw",
    "normal": "recording.draw",
    "uniform": "recording.draw",
    "Pair": "recording.pair",
    "Side": "recording.pair",
}
__all__ = [
    "Comparison",
    "Evidence",
    "OneSided",
    "Pair",
    "Row",
    "Side",
    "Trace",
    "TraceWriter",
    "array_facts",
    "compare",
    "compare_files",
    "compare_traces",
    "digest",
    "find_evidence",
    "integers",
    "normal",
    "read_declared",
    "read_trace",
    "record_taps",
    "ulp_variant",
    "uniform",
    "write_trace",
]


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{HOMES[name]}"), name)
