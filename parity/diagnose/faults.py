"""A fault while rows are being explained: where it is, and which rows it can explain."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite

from parity.comparison.verdict import SEVERITY, Row
from parity.diagnose.finding import Kind, Sureness
from parity.diagnose.reach import Pass
from parity.diagnose.sizes import FACTOR, OF_GRADIENTS, Size
from parity.diagnose.sources import BUFFERS
from parity.diagnose.stages import Place, module_of, place_of

Key = tuple[str, ...]
DROPOUT, RANDOM = "dropout", "random"  # a code, and the tap of whether two passes differ
UNUSED = ("no bias", "no weight", "not loaded", "left out")  # codes: parameters are not used
ROUNDING = "rounding"  # code of lost digits without a known reason
IN_BOTH = (ROUNDING, "one-pass", "long sum", "fast math")  # codes of lost digits in any precision


@dataclass
class Fault:
    """One cause and the rows that it explains.

    `forward`, `backward` and `names` are what it changes by itself, by mode (training or not):
    activations; the gradient by what is computed before a place of the pass; parameters, whose
    gradients, statistics and steps it changes.
    """

    key: Key
    kind: Kind
    code: str
    text: str
    operation: str
    shown_by: Sureness
    rows: list[Row] = field(default_factory=list)  # that show it by themselves
    folded: list[Row] = field(default_factory=list)  # that follow from it
    forward: dict[bool, set[str]] = field(default_factory=lambda: {False: set(), True: set()})
    backward: dict[bool, float] = field(default_factory=lambda: {False: -2.0, True: -2.0})
    names: set[tuple[str, str]] = field(default_factory=set)  # kind of a row, name
    reached: dict[bool, set[str]] = field(default_factory=dict)
    shown: Size = field(default_factory=Size)  # of the rows that show it
    size: Size = field(default_factory=Size)  # of all its rows so far

    @property
    def first(self) -> Row:
        """The first row that shows it."""
        return self.rows[0]

    @property
    def is_narrow(self) -> bool:
        """Whether it explains no row of float32, if it shows in float64 alone."""
        return self.kind == "other structure" or (
            self.kind == "less precise" and self.code not in IN_BOTH
        )

    @property
    def places(self) -> list[str]:
        """The modules and names that show it, each once."""
        return list(dict.fromkeys(module_of(place_of(r.stage, r.tap).name) for r in self.rows))

    def add(self, row: Row, place: Place, graph: Pass) -> None:
        """A row that shows the fault."""
        self.rows.append(row)
        self.shown.add(row, shows=True)
        self.size.add(row, shows=True)
        self.reached = {}
        if place.kind == "forward":
            for training in modes_of(place, graph):
                self.forward[training].add(place.name)
        elif place.kind == "loss":
            self.backward[place.training] = len(graph.order)
        elif place.kind == "backward":
            self.starts_backward(place, graph)
            self.names.add(("backward", place.name))
        elif place.kind == "state":
            self.names |= {(kind, place.name) for kind in ("gradients", "statistics", "update")}
            for training in (False, True):
                self.forward[training] |= owners(place.name, graph)
        else:
            self.names.add((place.kind, place.name))
            if place.kind in ("gradients", "statistics"):
                self.names.add(("update", place.name))

    def fold(self, row: Row, place: Place, graph: Pass) -> None:
        """A row that follows from the fault; its own place in another mode starts it there too."""
        self.folded.append(row)
        self.size.add(row, shows=False)
        if place.isolated and place.kind == "forward":
            self.forward[place.training].add(place.name)
            self.reached = {}
        elif not place.isolated and ("backward", place.name) in self.names:
            self.starts_backward(place, graph)

    def starts_backward(self, place: Place, graph: Pass) -> None:
        """The gradient by an output is wrong from here; alone, a module's gradient by its input."""
        if place.kind == "backward":
            at = graph.place(module_of(place.name)) - (0.5 if place.isolated else 0.0)
            for training in modes_of(place, graph):
                self.backward[training] = max(self.backward[training], at)

    def explains(self, row: Row, place: Place, graph: Pass) -> bool:
        """Whether the row can follow from this fault."""
        precise = all(own.precision == "float64" for own in self.rows)
        if precise and self.is_narrow and row.precision != "float64":
            return False
        in_single = all(own.precision != "float64" for own in self.rows)
        if row.precision == "float64" and in_single and row.verdict != "less precise":
            return False
        if SEVERITY[row.verdict] > max(SEVERITY[own.verdict] for own in self.rows):
            return False
        if place.isolated:
            return self.explains_isolated(place, graph)
        reached = self.reach(place.training, graph)
        if place.kind == "forward":
            prefix = "in " if row.stage.endswith("inputs") else ""
            return f"{prefix}{place.name}" in reached
        if (place.kind, place.name) in self.names:
            return True
        mode = place.training
        if place.kind == "statistics":
            return bool(
                {f"in {place.name.rpartition('.')[0]}", place.name.rpartition(".")[0]} & reached
            )
        if place.kind == "update" and not graph.taps.get(True):
            mode, reached = False, self.reach(False, graph)
        if place.kind in ("loss", "backward", "gradients", "update"):
            return bool(reached) or graph.place(module_of(place.name)) <= self.backward[mode]
        return place.kind == "" and bool(reached)

    def brings(self, row: Row, place: Place) -> bool:
        """Whether the row's error can follow from the fault's, which may be far smaller.

        What a loss or a structure changes has any size, and so has what a module alone shows.
        """
        if place.isolated or self.kind == "other structure" or self.leaves_unused(row):
            return True
        of_loss = any(place_of(own.stage, own.tap).kind == "loss" for own in self.rows)
        return (of_loss and place.kind in OF_GRADIENTS) or self.size.brings(row, place.kind)

    def leaves_unused(self, row: Row) -> bool:
        """Whether a parameter of a row has no gradient since the faulty function leaves it out."""
        return self.code in UNUSED and owner_of(place_of(row.stage, row.tap).name) in self.places

    def explains_isolated(self, place: Place, graph: Pass) -> bool:
        """A module alone: only what is wrong in this module itself."""
        module = module_of(place.name)
        own = {module_of(name) for name in self.forward[place.training] | self.forward[False]}
        if place.kind in ("forward", "backward"):
            return any(is_part(module, name) for name in own)
        if place.kind == "gradients":
            return any(module in params_of(name, graph) for name in own)
        statistic = place.kind == "statistics" and self.code == "one-pass"
        return (statistic and owner_of(place.name) in own) or (place.kind, place.name) in self.names

    def reach(self, training: bool, graph: Pass) -> set[str]:
        """The activations that the fault can change."""
        if training not in self.reached:
            self.reached[training] = graph.reached(training, self.forward[training])
        return self.reached[training]


def with_one_reason(faults: Sequence[Fault]) -> list[Fault]:
    """The faults, where an operation that loses digits without a known reason is folded into the
    same operation with one: there, the numbers were too small to show it."""
    shown = {f.operation: f for f in faults if f.kind == "less precise" and f.code != ROUNDING}
    left = []
    for fault in faults:
        if fault.kind == "less precise" and fault.code == ROUNDING and fault.operation in shown:
            shown[fault.operation].rows += fault.rows
            shown[fault.operation].folded += fault.folded
        else:
            left.append(fault)
    return left


def without_repeated_dropout(faults: Sequence[Fault]) -> list[Fault]:
    """The faults, where "a mode draws random numbers" is folded into the place that does so."""
    shown = [fault for fault in faults if fault.code == DROPOUT and fault.places != [RANDOM]]
    left = []
    for fault in faults:
        if shown and fault.code == DROPOUT and fault.places == [RANDOM]:
            shown[0].folded += fault.rows + fault.folded
        else:
            left.append(fault)
    return left


def owner_of(parameter: str) -> str:
    """The module of a parameter."""
    return module_of(parameter).rpartition(".")[0]


def is_part(module: str, tap: str) -> bool:
    """Whether a tap is an output of a module: `attention.0` of `attention`."""
    return tap == module or tap.startswith(f"{module}.") or module.startswith(f"{tap}.")


def params_of(name: str, graph: Pass) -> tuple[str, ...]:
    """The parameters of the module that makes an activation, those of its parts included."""
    made = graph.made_by.get(f"forward/{name}") or graph.made_by.get(f"training forward/{name}")
    return made.params if made else ()


def has_buffers(name: str, graph: Pass) -> bool:
    """Whether the module of an activation has running statistics: alone, it runs in both modes."""
    return any(param.endswith(BUFFERS) for param in params_of(name, graph))


def modes_of(place: Place, graph: Pass) -> set[bool]:
    """The modes, training or not, that a row tells of: alone, a module runs in evaluation mode
    only, unless it has running statistics."""
    both = place.isolated and not has_buffers(place.name, graph)
    return {place.training, True} if both else {place.training}


def owners(name: str, graph: Pass) -> set[str]:
    """The activations of the modules that use a parameter."""
    users = {tap for tap, made in graph.made_by.items() if name in made.params}
    found = {tap.partition("/")[2] for tap in users}
    return found or {tap for tap in [name.rpartition(".")[0]] if tap in graph.order}


def explained_by(
    row: Row, faults: Sequence[Fault], graph: Pass, of_any_size: bool = False
) -> Fault | None:
    """The fault that explains a row: of several, that of the row's own name, else the last that is
    computed before it. A fault of the backward pass comes after all of the forward pass. Faults far
    smaller than the largest of them explain little of the row, so they do not count."""
    place = place_of(row.stage, row.tap)
    fitting = [
        fault
        for fault in faults
        if fault.explains(row, place, graph) and (of_any_size or fault.brings(row, place))
    ]
    sizes = [fault.shown.error for fault in fitting if isfinite(fault.shown.error)]
    large = max(sizes, default=0.0) / FACTOR

    def order(fault: Fault) -> tuple[bool, bool, bool, int]:
        at = graph.place(fault.places[0])
        backward = place_of(fault.first.stage, fault.first.tap).kind == "backward"
        own = (place.kind, place.name) in fault.names
        return own, fault.shown.error >= large, backward, -at if backward else at

    return max(fitting, key=order, default=None)
