"""The recordings that rows are explained by: the arrays of a row, and how they were made."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from parity.comparison.stored import is_sketch
from parity.comparison.trace import Trace
from parity.comparison.verdict import Evidence, Row
from parity.diagnose.causes.facts import Operation, operations_of
from parity.diagnose.causes.pair import Array, Context
from parity.diagnose.stages import module_of

BUFFERS = ("running_mean", "running_var")
BAD = ("different", "less precise")  # verdicts that a finding explains


class WholeArrays(Mapping[str, Array]):
    """The taps of a trace that are stored whole; each is read when it is asked for.

    With a stage, only its taps, by their names without it.
    """

    def __init__(self, trace: Trace, stage: str = "") -> None:
        self.taps, self.prefix = trace.taps, f"{stage}/" if stage else ""
        self.names = {
            name.removeprefix(self.prefix): None
            for name in trace.taps
            if name.startswith(self.prefix) and not is_sketch(trace.taps, name)
        }

    def __getitem__(self, name: str) -> Array:
        if name not in self.names:
            raise KeyError(name)
        value = self.taps[f"{self.prefix}{name}"]
        assert isinstance(value, np.ndarray)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self.names


def shape_of(trace: Trace, name: str) -> tuple[int, ...]:
    """The shape of a tap."""
    return tuple(trace.taps[name].shape)


@dataclass
class Sources:
    """All comparisons of one pair: whole passes and isolated modules, in each precision."""

    pairs: Sequence[Evidence]
    contexts: dict[int, Context] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)  # tap that was not recomputed -> why

    def of_row(self, row: Row) -> Evidence | None:
        """The comparison that a row is from."""
        place = f"{row.stage}/{row.tap}"
        for pair in self.pairs:
            if pair.candidate.manifest["precision"] != row.precision:
                continue
            if str(pair.baseline.manifest.get("case", "")) != row.case:
                continue
            if place in pair.baseline.taps and place in pair.candidate.taps:
                return pair
        return None

    def seen(self, row: Row, other: Row | None) -> Row:
        """The row whose arrays show the cause: `other`, if only its arrays are stored whole.

        `other` is the row of the same place in the other precision, if there is one.
        """
        if other is None or other.verdict not in BAD or self.whole(row) or not self.whole(other):
            return row
        return other

    def whole(self, row: Row) -> bool:
        """Whether both arrays of a row are stored whole."""
        pair, name = self.of_row(row), f"{row.stage}/{row.tap}"
        traces = (pair.baseline, pair.candidate) if pair else ()
        return bool(traces) and not any(is_sketch(trace.taps, name) for trace in traces)

    def whole_pass(self, row: Row) -> Trace | None:
        """The baseline's recording that holds the inputs of a row.

        Isolated modules are fed with its float32 numbers, in each precision.
        """
        own = self.of_row(row)
        if own is None or not row.stage.startswith("isolated"):
            return own.baseline if own else None
        passes = [p.baseline for p in self.pairs if has_stage(p.baseline, "forward")]
        exact = [t for t in passes if t.manifest["precision"] != "float64"]
        return next(iter([*exact, *passes]), own.baseline)

    @property
    def main(self) -> Evidence | None:
        """The whole pass in the pair's precision, or the first comparison."""
        whole = [pair for pair in self.pairs if has_stage(pair.baseline, "forward")]
        return next(iter([*whole, *self.pairs]), None)

    def context(self, row: Row) -> Context:
        """What is known of how the baseline made a row; of its taps, those that it reads."""
        trace = self.whole_pass(row)
        if trace is None:
            return Context()
        if id(trace) not in self.contexts:
            self.contexts[id(trace)] = context_of(trace)
        return self.contexts[id(trace)]


def has_stage(trace: Trace, stage: str) -> bool:
    """Whether a trace has a tap of a stage."""
    return any(name.startswith(f"{stage}/") for name in trace.taps)


def context_of(trace: Trace) -> Context:
    """The context that a whole pass gives."""
    settings = trace.manifest.get("subject", {}).get("settings") or {}
    update = settings.get("update") if isinstance(settings, Mapping) else None
    update = update if isinstance(update, Mapping) else {}
    parameters = WholeArrays(trace, "parameters")
    sgd = update.get("name") == "sgd"
    return Context(
        taps=WholeArrays(trace),
        params=parameters,
        made_by=operations_by_stage(trace, parameters),
        lr=number(update.get("lr")),
        weight_decay=number(update.get("weight_decay")),
        momentum=number(update.get("momentum", 0.0)) if sgd else None,
    )


def number(value: Any) -> float | None:
    """A setting that is a number, else None."""
    return float(value) if isinstance(value, (int, float)) else None


def operations_by_stage(trace: Trace, parameters: Mapping[str, Array]) -> dict[str, Operation]:
    """The operations of every forward stage: evaluation, training, and both with modules alone."""
    known, result = operations_of(trace.manifest), {}
    for name, made in known.items():
        stage, _, path = name.partition("/")
        if stage.rpartition(" ")[2] not in ("forward", "inputs"):
            result[name] = made
            continue
        made = with_buffers(made, path, parameters)
        for prefix in ("", "training "):
            if prefix and stage.startswith("training"):
                continue
            mine = f"{prefix}{stage}/{path}"
            if prefix and mine in known:
                continue
            reads = tuple(
                f"{prefix}{read}" if f"{prefix}{read}" in trace.taps else read
                for read in made.reads
            )
            entry = replace(made, reads=reads)
            result[mine] = result[f"isolated {mine}"] = entry
    return result | fused_attentions(trace, result)


def fused_attentions(trace: Trace, known: Mapping[str, Operation]) -> dict[str, Operation]:
    """Inputs of modules that attention may have made: the tap before is three times as wide.

    Attention is often a function outside of modules, between a dense layer and the next.
    """
    result, before = {}, ""
    for name in trace.taps:
        kind = name.partition("/")[0].rpartition(" ")[2]
        if kind == "inputs" and before and name not in known:
            wide, shape = shape_of(trace, before), shape_of(trace, name)
            if len(shape) == 3 and wide == (*shape[:2], 3 * shape[2]):
                result[name] = Operation("fused attention", (before,))
        if kind == "forward":
            before = name
    return result


def with_buffers(made: Operation, path: str, parameters: Mapping[str, Array]) -> Operation:
    """The operation with the buffers of its module among its parameters."""
    module = made.params[0].rpartition(".")[0] if made.params else module_of(path)
    buffers = [f"{module}.{end}" if module else end for end in BUFFERS]
    extra = [name for name in buffers if name in parameters and name not in made.params]
    return replace(made, params=(*made.params, *extra))
