"""Which taps a fault can change: the order of the pass, and what each tap reads.

A fault in an activation changes all taps that read it, directly or through others. A tap whose
inputs are unknown counts as a reader of every tap before it. A fault in a gradient changes the
gradients of all that is computed earlier.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from parity.comparison.trace import Trace
from parity.diagnose.causes.facts import Operation
from parity.diagnose.sources import WholeArrays, operations_by_stage
from parity.diagnose.stages import Place, module_of, place_of


@dataclass
class Pass:
    """The forward taps of a recorded pass by stage, in order, and how they were made."""

    taps: dict[bool, list[str]] = field(default_factory=dict)  # training -> whole names
    made_by: Mapping[str, Operation] = field(default_factory=dict)
    order: dict[str, int] = field(default_factory=dict)  # name without stage -> place in the pass
    used: dict[str, int] = field(default_factory=dict)  # parameter -> place of its first use

    def reached(self, training: bool, starts: Collection[str]) -> set[str]:
        """All forward taps that faults in some modules can change, those modules' own included.

        `starts` and the result are names without their stage.
        """
        result: set[str] = set()
        for whole in self.taps.get(training, ()):
            stage, _, name = whole.partition("/")
            made = self.made_by.get(whole)
            if stage.endswith("choices"):
                made = self.made_by.get(whole.replace("choices/", "forward/", 1))
            reads = [read.partition("/")[2] for read in made.reads] if made else []
            reader = (
                bool(result)
                if not reads
                else any(f"in {r}" in result or r in result for r in reads)
            )
            if name in starts or reader:
                result.add(f"in {name}" if stage.endswith("inputs") else name)
        return result

    def operation_of(self, place: Place) -> str:
        """The operation of the module that a gradient or a statistic belongs to; may be empty."""
        module = place.name
        if place.kind in ("gradients", "statistics", "update"):
            module = module.rpartition(".")[0]
        made = self.made_by.get(f"forward/{module}")
        return (made.operation or made.module) if made else ""

    def place(self, name: str) -> int:
        """The place in the pass of a tap, or of the module that has a parameter; inputs are -1."""
        if name.startswith("input:"):
            return -1
        if name in self.used:
            return self.used[name]
        while name and name not in self.order:
            shorter = name.rpartition(".")[0]
            name = shorter if shorter != name else ""
        return self.order.get(name, len(self.order))

    def before(self, name: str) -> str:
        """The last output of a module before a tap; empty for the first."""
        made = {
            t.partition("/")[2] for t in self.made_by if t.partition("/")[0].endswith("forward")
        }
        names = [n for n in self.order if self.order[n] < self.place(name)]
        return next((n for n in reversed(names) if n in made or not made), "")


def pass_of(trace: Trace) -> Pass:
    """The order and the graph of a baseline's whole pass."""
    result = Pass({}, operations_by_stage(trace, WholeArrays(trace, "parameters")))
    for whole in trace.taps:
        stage, _, tap = whole.partition("/")
        place = place_of(stage, tap)
        if place.kind == "forward" and not place.isolated:
            result.taps.setdefault(place.training, []).append(whole)
            if not stage.endswith("choices"):
                result.order.setdefault(tap, len(result.order))
                result.order.setdefault(module_of(tap), result.order[tap])
                made = result.made_by.get(whole)
                for name in made.params if made and stage.endswith("forward") else ():
                    result.used.setdefault(name, result.order[tap])
    return result
