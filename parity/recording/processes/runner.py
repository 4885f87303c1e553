"""Record both sides of a pair, each in its own environment, into one folder.

    recorded = record_pair(Path("pair.py"), Path("out"))

A recording is used again if nothing that it depends on changed: the options, weights and inputs,
the recordings that it follows, the side's code and versions (depends.py), and this program. The
file is long, because the order of all steps of a run is here.
"""

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from parity.comparison.sketch import Array
from parity.comparison.trace import Trace, read_trace
from parity.errors import ParityError
from parity.matching.declared import Declared
from parity.recording.adapter import RestartNeededError
from parity.recording.depends import own_source, refuse_two_versions
from parity.recording.pair import BUILT, SIDES, Pair, load_pair
from parity.recording.processes.child import Child
from parity.recording.processes.kept import Kept, digest_of
from parity.recording.processes.lanes import run_lanes
from parity.recording.processes.plan import Request, requests
from parity.recording.side import FLOAT64, load_arrays, save_arrays, subject_facts
from parity.recording.weights import baseline_weights, candidate_names, module_names

Say = Callable[[str], None]


@dataclass
class Recorded:
    """The files of a recorded pair, by the names of their requests, and what to know of them."""

    folder: Path
    pair: Pair
    files: dict[str, Path] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    # the candidate's names of weights that only their order has paired -> the baseline's
    guessed: dict[str, str] = field(default_factory=dict)

    def traces(self, kind: str) -> list[Path]:
        """Files of one kind, baseline and candidate in float32 first."""
        first = [f"baseline-{kind}-float32", f"candidate-{kind}-float32"]
        rest = [n for n in self.files if f"-{kind}-" in n and n not in first]
        return [self.files[name] for name in [*first, *rest] if name in self.files]


class Runner:
    """The recording of one pair: children, keys of what was recorded, and progress."""

    def __init__(
        self, path: Path, out: Path, pythons: Mapping[str, str], fresh: bool, say: Say
    ) -> None:
        self.path, self.out = path.resolve(), out.resolve()
        self.pythons = {side: Path.cwd() / python for side, python in pythons.items()}
        self.say = say
        self.pair = load_pair(path)
        self.recorded = Recorded(self.out, self.pair)
        self.out.mkdir(parents=True, exist_ok=True)
        self.children: dict[tuple[str, str], Child] = {}
        self.missing: set[str] = set()  # recordings and precisions that could not be made
        self.described: dict[str, dict[str, Any]] = {}  # by side
        self.kept = Kept(self.out, fresh)
        self.weight_names: dict[str, dict[str, str]] = {}  # side -> own name -> baseline's
        self.facts: dict[str, Any] = {}
        self.layouts: dict[str, str] = {}  # the candidate's: the pair's, then its framework's

    def __enter__(self) -> "Runner":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: Any, trace: TracebackType | None
    ) -> None:
        for child in [*self.children.values()]:
            child.kill() if kind else child.close()

    def label(self, side: str) -> str:
        """The side for people: `candidate (jittor)`."""
        return f"{side} ({self.pair.side(side).framework})"

    def child(self, side: str, precision: str) -> Child:
        """The process of a side and precision; it is started, and loaded, at first use."""
        if (side, precision) in self.children:
            return self.children[side, precision]
        started = time.monotonic()
        try:
            child, described = self._started(side, precision)
        except RestartNeededError:
            self.children.pop((side, precision)).close()
            self.say(f"{self.label(side)}: has compiled itself for other settings; starts again")
            child, described = self._started(side, precision)
        first = self.described.setdefault(side, described)
        refuse_two_versions(self.label(side), first["files"], described["files"])
        if side in self.weight_names:
            self.load(child, side)
        version = described["producer"].get("version", "")
        seconds = time.monotonic() - started
        self.say(f"{self.label(side)} {version}: built in {precision} ({seconds:.0f} s)")
        return child

    def _started(self, side: str, precision: str) -> tuple[Child, dict[str, Any]]:
        """A new process whose model is built, and what it says of itself."""
        child = self.start(side, precision)
        self.children[side, precision] = child
        return child, child.ask(
            "start",
            f"start and build in {precision}",
            pair=str(self.path),
            side=side,
            precision=precision,
            label=self.label(side),
        )

    def start(self, side: str, precision: str) -> Child:
        """A new process of a side and precision."""
        own = self.path.parent / (self.pair.side(side).python or sys.executable)
        python = self.pythons.get(side, own)
        log = self.out / f"{side}-{precision}.log"
        return Child(python, self.path.parent, log, self.label(side), say=self.say)

    def load(self, child: Child, side: str, state: Path | None = None) -> str:
        """Load the pair's weights and inputs into a child; a digest of its whole state.

        A candidate that keeps its builder's weights has those of its float32 process in all others:
        random numbers of another type would be other ones.
        """
        weights = self.out / ("drawn.npz" if state else "weights.npz")
        built = None
        if side == "candidate" and self.pair.weights == BUILT:
            own = self.out / "candidate-weights.npz"
            first = child is self.children.get((side, "float32"))
            state, built = (own, None) if first else (None, own)
        answer = child.ask(
            "load",
            weights=str(weights),
            built=str(built) if built else None,
            names=self.weight_names[side],
            inputs=str(self.out / "inputs.npz"),
            state=str(state) if state else None,
            layouts=dict(self.layouts) if side == "candidate" else {},
        )
        return str(answer["state"])

    def try_once(self, child: Child, side: str) -> None:
        """Find mistakes of the pair file before anything slow; only the baseline is called."""
        for note in child.ask("trial", "first call", call=side == "baseline")["notes"]:
            self.say(f"{self.label(side)}: {note}")

    def prepare(self) -> None:
        """Draw weights and inputs, build both sides, and match the names of their weights."""
        self.prepare_baseline()
        self.prepare_candidate()

    def prepare_baseline(self) -> None:
        """Draw weights and inputs, and build the baseline with them."""
        inputs = self.pair.arrays()
        save_arrays(self.out / "inputs.npz", inputs)
        child = self.child("baseline", "float32")
        state = self.described["baseline"]["state"]
        tables = self.described["baseline"]["tables"]
        drawn, notes = baseline_weights(self.pair, state, self.path.parent, tables)
        self.recorded.notes += notes
        save_arrays(self.out / "drawn.npz", drawn)
        self.weight_names["baseline"] = {name: name for name in drawn}
        self.load(child, "baseline", self.out / "weights.npz")
        (self.out / "drawn.npz").unlink()  # the child has written back what it has loaded
        weights: dict[str, Array] = load_arrays(self.out / "weights.npz")
        self.weight_names["baseline"] = {name: name for name in weights}
        self.described["baseline"]["loaded"] = self.load(child, "baseline")
        self.try_once(child, "baseline")
        self.facts = subject_facts(self.pair, weights, inputs)

    def prepare_candidate(self) -> None:
        """Build the candidate, and load the baseline's weights into it by matched names."""
        state = self.described["baseline"]["state"]
        child = self.child("candidate", "float32")
        described = self.described["candidate"]
        if not self.described["baseline"]["layouts"]:  # else both have the same ones
            self.layouts = described["layouts"]
        self.layouts = {**self.pair.layouts, **self.layouts}
        declared = Declared(layouts=self.layouts)
        names, notes, self.recorded.guessed = candidate_names(
            self.pair, state, described["state"], declared, described["may_fold"]
        )
        self.weight_names["candidate"] = names
        self.described["candidate"]["loaded"] = self.load(child, "candidate")
        self.try_once(child, "candidate")
        self.recorded.notes += notes

    def record_all(self) -> None:
        """Make every recording of the plan, or find it in the folder."""
        abilities = {side: self.described[side]["abilities"] for side in SIDES}
        plan = requests(self.pair, abilities)
        before = len(self.recorded.notes)
        run_lanes(plan, self._record_in_lane, self._kill)
        files, notes = self.recorded.files, self.recorded.notes
        if "baseline float64" in self.missing:  # nothing to compare the candidate's with
            plan = [request for request in plan if request.precision != "float64"]
        self.recorded.files = {r.name: files[r.name] for r in plan if r.name in files}
        notes[before:] = sorted(notes[before:])  # in an order that does not depend on time
        others = [name for name in self.kept.entries if name not in self.recorded.files]
        for name in others:
            (self.out / f"{name}.npz").unlink(missing_ok=True)  # of another plan
        self.kept.drop(others)

    def _record_in_lane(self, request: Request) -> None:
        """One recording of the plan; the float32 process of a side ends before float64 starts."""
        if {request.follow, request.source, request.precision_of_side} & self.missing:
            self.missing.add(request.name)
            return
        if request.branch and self.same_branch(request):
            return
        if request.precision == "float64" and (request.side, "float32") in self.children:
            self.children.pop((request.side, "float32")).close()
        try:
            self.record(request)
        except ParityError as error:
            if request.precision != "float64" or FLOAT64 not in str(error):
                raise  # an error of the model's code in float64 leaves the answer in float32
            self.recorded.files.pop(request.name, None)
            self.missing |= {request.name, request.precision_of_side}
            self.recorded.notes.append(f"{error}; the answer has no float64 of this side")

    def _kill(self) -> None:
        for child in [*self.children.values()]:
            child.kill()

    def same_branch(self, request: Request) -> bool:
        """Whether the candidate's float64 choices are those that the reference follows already."""
        if request.variant:
            return False
        names = f"baseline-{request.kind}-float64", f"candidate-{request.kind}-float64"
        first, second = (read_trace(self.out / f"{n}.npz").manifest.get("branch") for n in names)
        return bool(first == second)

    def record(self, request: Request, name: str = "") -> None:
        """One recording; `name`: of its file, if it is not the request's own."""
        name = name or request.name
        file = self.out / f"{name}.npz"
        names = self._module_names(request)
        options = {
            "kind": request.kind,
            "variant": request.variant,
            "names": names,
        }
        used = [other for other in (request.follow, request.source) if other]
        side = self._digest_of_side(request.side)
        keys = {other: self.kept.key(other) for other in used}
        facts = [
            options,
            request.precision,
            self.facts,
            self.layouts,
            self.weight_names[request.side],
            [*keys.values()],
            side,
        ]
        key = digest_of(facts)
        made_from = {"key": key, "used": keys, "side": side, "pair": str(self.path)}
        made_from |= {"names": dict(self.pair.names), "layouts": dict(self.pair.layouts)}
        self.recorded.files[name] = file
        words = " ".join(w for w in (request.kind, request.precision, request.variant) if w)
        kept = self.kept.answer(name, key)
        if kept is not None and file.is_file():
            self.say(f"{self.label(request.side)}: {words}: unchanged")
            self._note(request, kept)
            return
        child, started = self.child(request.side, request.precision), time.monotonic()
        paths = {
            role: str(self.out / f"{other}.npz") if other else None
            for role, other in (("follow", request.follow), ("source", request.source))
        }
        answer = child.ask("record", words, out=str(file), made_from=made_from, **options, **paths)
        self.kept.add(name, key, answer)
        seconds = time.monotonic() - started
        self.say(f"{self.label(request.side)}: {words}: {answer['taps']} taps ({seconds:.0f} s)")
        self._note(request, answer)

    def _digest_of_side(self, side: str) -> str:
        """Of all that every recording of a side depends on."""
        described = self.described[side]
        parts = ("producer", "files", "versions", "environment", "built", "loaded")
        return digest_of([{p: described[p] for p in parts}, self.pair.tag, own_source()])

    def _note(self, request: Request, answer: Mapping[str, Any]) -> None:
        label = self.label(request.side)
        for note in answer["notes"]:
            if f"{label}: {note}" not in self.recorded.notes:
                self.recorded.notes.append(f"{label}: {note}")

    def _module_names(self, request: Request) -> dict[str, str]:
        """For isolated replay by the candidate: its names of module calls -> the baseline's."""
        if request.kind != "isolated" or request.side != "candidate":
            return {}
        names = request.source, "candidate-pass-float32"
        pair: list[Trace] = [read_trace(self.out / f"{name}.npz") for name in names]
        return module_names(self.pair, *pair)


def record_pair(
    path: Path,
    out: Path,
    pythons: Mapping[str, str] | None = None,
    fresh: bool = False,
    say: Say = print,
) -> Recorded:
    """Record both sides of a pair file into a folder.

    Args:
        pythons: side -> interpreter, relative to the present folder; instead of the pair file's.
        fresh: record again what was recorded already.

    Raises:
        ParityError: the pair file, a builder or a model fails; the text says where.
    """
    for side in pythons or {}:
        if side not in SIDES:
            raise ParityError(f"--python {side}: expected one of {', '.join(SIDES)}")
    with Runner(path, out, pythons or {}, fresh, say) as runner:
        runner.prepare()
        runner.record_all()
    return runner.recorded
