"""What is recorded, a loaded model, and what a recording holds until it is written."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from parity.comparison.sketch import Array
from parity.matching.declared import Declared
from parity.recording.adapter import Adapter, Module
from parity.recording.following import Branch
from parity.recording.keeping import Kept
from parity.recording.pair import Loss
from parity.recording.recorder import ModuleCall


@dataclass
class Subject:
    """A built and loaded model, and how to run it."""

    adapter: Adapter
    model: Any
    inputs: Mapping[str, Array]
    weights: Mapping[str, Array]  # by the model's own names
    loss: Loss = "projection"
    update: Mapping[str, Any] | None = None
    modes: Sequence[str] = ("eval", "train")
    seed: int = 0
    variant: str | None = None  # such as `ulp:1`: its weights are moved already
    targets: Mapping[str, Array] = field(default_factory=dict)  # what only the loss gets
    declared: Declared = field(default_factory=Declared)  # layouts of this side's arrays
    place: str = ""  # what runs now, for messages
    modules: dict[str, Module] = field(default_factory=dict)
    calls: dict[str, dict[str, ModuleCall]] = field(default_factory=dict)  # stage -> tap -> call
    kept: Kept | None = None

    def __post_init__(self) -> None:
        self.modules = {module.path: module for module in self.adapter.modules(self.model)}
        self.kept = self.adapter.keep(self.model, whole=False)

    def start(self) -> None:
        """The model as it was built, with the weights: every pass starts from there."""
        if self.kept:
            self.kept.restore()
        self.adapter.load(self.model, self.weights)


@dataclass
class Recording:
    """Taps in order, and what the manifest says of them.

    With a `sink`, `taps` holds only those that were not handed to it yet: those of one stage.
    """

    taps: dict[str, Array] = field(default_factory=dict)
    kinks: dict[str, Any] = field(default_factory=dict)
    operations: dict[str, Any] = field(default_factory=dict)
    terms: dict[str, int] = field(default_factory=dict)
    branch: Branch = field(default_factory=Branch)
    notes: list[str] = field(default_factory=list)
    sink: Callable[[str, Array], None] | None = None
    inputs_of_kinks: set[str] = field(default_factory=set)

    def flush(self) -> None:
        """Hand the taps so far to the sink, and drop them. Their kinks are known by now."""
        if self.sink is None:
            return
        self.inputs_of_kinks |= {str(facts["input"]) for facts in self.kinks.values()}
        for name in [*self.taps]:
            self.sink(name, self.taps.pop(name))

    def facts(self) -> dict[str, Any]:
        """The tables of the manifest."""
        return {"kinks": self.kinks, "operations": self.operations, "terms": self.terms}
