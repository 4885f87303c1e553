"""Names that nothing but a place suggests, and that the outputs of modules then confirm."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from parity.comparison.verdict import Comparison

AGREE = ("equivalent", "less precise")  # a vacuous tap is no evidence


@dataclass(frozen=True)
class Outputs:
    """What the whole forward passes show of each module of the baseline.

    `agree`: module -> whether its outputs agree in each mode and precision; empty: all outputs.
    `alike`: modules that read what another module of the same operation reads. Two of these may be
    exchanged, and their outputs agree all the same: only what is computed from them shows it.
    """

    agree: Mapping[str, bool] = field(default_factory=dict)
    alike: frozenset[str] = frozenset()

    def confirm(self, path: str) -> bool:
        """Whether the numbers show that the name of a module or parameter is right.

        Its module's output agrees. All outputs must agree where another module may be exchanged
        with it, and where the name has no module.
        """
        module = path if path in self.agree else path.rpartition(".")[0]
        known = module in self.agree and module not in self.alike
        return self.agree.get(module if known else "", False)


def outputs_of(comparison: Comparison) -> Outputs:
    """What a comparison shows of the modules' outputs."""
    verdicts: dict[str, set[str]] = {}
    for row in comparison.rows:
        if row.stage in ("forward", "training forward"):
            for name in {row.tap, row.tap.partition("#")[0], ""}:
                verdicts.setdefault(name, set()).add(row.verdict)
    agree = {
        name: not found.isdisjoint(AGREE) and found.isdisjoint(("different", "undecided"))
        for name, found in verdicts.items()
    }
    return Outputs(agree, frozenset(exchangeable(comparison)))


def exchangeable(comparison: Comparison) -> set[str]:
    """The modules of the baseline that read the same as another one of their operation."""
    found: set[str] = set()
    for pair in comparison.pairs:
        operations: Mapping[str, Any] = pair.baseline.manifest.get("operations") or {}
        made = {
            tap.partition("/")[2]: (entry.get("operation"), *(entry.get("reads") or ()))
            for tap, entry in operations.items()
            if tap.startswith(("forward/", "training forward/"))
        }
        count = Counter(made.values())
        found |= {name for name, key in made.items() if count[key] > 1}
    return found
