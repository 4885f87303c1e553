"""One side in its own process: build, load, record; errors of the user's code name their place."""

import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from parity.comparison.sketch import Array
from parity.comparison.subject import array_facts, digest
from parity.comparison.trace import environment, read_trace
from parity.comparison.writer import TraceWriter
from parity.errors import ParityError
from parity.matching.declared import Declared
from parity.recording.adapter import adapter_of
from parity.recording.arguments import check_arguments
from parity.recording.depends import UsedFiles, built_digest
from parity.recording.draw import draw_inputs, ulp_moved
from parity.recording.following import Handed
from parity.recording.isolated import record_isolated
from parity.recording.laid_out import in_layout, inputs_in_layout
from parity.recording.missing import containers, not_alone, uncalled
from parity.recording.objective import check_update
from parity.recording.pair import BUILT, Pair, load_pair
from parity.recording.passes import call_once, record_pass
from parity.recording.places import place_of, reason_of
from parity.recording.replacing import replace_modules
from parity.recording.storing import Storing, limit_of_weights
from parity.recording.subject import Recording, Subject

FLOAT64 = (
    "; this is the recording in float64: if the model makes float32 arrays itself, let it use the "
    "type of its input, or give `float64=False` in the pair"
)


class RecordedSide:
    """A built model of one side in one precision, which answers requests to record.

    Raises:
        ParityError: the framework cannot start, or the user's code fails; the text says where.
    """

    def __init__(self, path: str, name: str, precision: str) -> None:
        self.path, self.name, self.precision = Path(path), name, precision
        self.used = UsedFiles()
        self.pair: Pair = load_pair(path)
        self.side = self.pair.side(name)
        self.label = f"{name} ({self.side.framework})"
        self.adapter = adapter_of(self.side.framework)
        self.producer = {"name": producer_name(self.pair, name), **self.adapter.start(precision)}
        own = self.pair.layouts if name == "candidate" else {}
        self.adapter.examples = self._examples(Declared(layouts=own))
        self.adapter.prepare_build()
        with self._told("build"):
            self.adapter.seed(self.pair.seed)
            built = self.side.build()
            model = self.adapter.finish_build(built)
        with self._told("replace"):
            replace_modules(self.adapter, model, self.side.replace)
        self.model = model
        self.built = built_digest(built)
        self.files = [self.path, *([Path(built)] if isinstance(built, str | os.PathLike) else [])]
        if self.pair.weights and self.pair.weights != BUILT:
            self.files.append(self.path.parent / self.pair.weights)
        self.weights: dict[str, Array] = {}
        self.subject: Subject | None = None
        self.facts: dict[str, Any] = {}

    def _examples(self, declared: Declared) -> dict[str, Array]:
        return inputs_in_layout(draw_inputs(self.pair.inputs, self.pair.seed), declared)

    def describe(self) -> dict[str, Any]:
        """What the parent needs to know: producer, abilities, state, and what it depends on."""
        with self._told("build"):
            state = self.adapter.state(self.model)
        return {
            "producer": self.producer,
            "abilities": sorted(self.adapter.abilities),
            "layouts": self.adapter.layouts(self.model),
            "may_fold": self.adapter.may_fold,
            "state": [
                [name, list(entry.array.shape), entry.array.dtype.str, entry.kind]
                for name, entry in state.items()
            ],
            "files": self.used.digests(self.files),
            "versions": self.used.versions(),
            "environment": environment(),
            "built": self.built,
            "tables": [
                name
                for module in self.adapter.modules(self.model)
                if module.operation == "embedding"
                for name in module.parameters
            ],
        }

    def load(
        self,
        weights: Mapping[str, Array],
        arrays: Mapping[str, Array],
        facts: Any,
        layouts: Mapping[str, str],
        built: Mapping[str, Array],
    ) -> str:
        """Load weights by this side's names; `arrays`: inputs and targets; `facts`: subject of the
        manifests.

        Returns a digest of the whole state. Entries without a weight keep what the builder made.
        `layouts`: patterns of this side's names -> how its axes lie, for weights and inputs
        (`laid_out.py`). `built`: arrays that this side's builder made in another process.
        """
        declared = Declared(layouts=layouts, strict=False)
        with self._told("load"):
            shapes = {n: e.array.shape for n, e in self.adapter.state(self.model).items()}
            fitting = {
                n: in_layout(n, value, shapes[n], declared).reshape(shapes[n])
                for n, value in weights.items()
            }
            arrays = inputs_in_layout(arrays, declared)
            self.adapter.load(self.model, fitting | dict(built))
            state = self.adapter.state(self.model)
        self.weights = {name: entry.array for name, entry in state.items()}
        self.facts = facts
        self.subject = Subject(
            self.adapter,
            self.model,
            {name: arrays[name] for name in self.pair.inputs},
            self.weights,
            self.pair.loss_of(self.name),
            self.pair.update,
            self.pair.modes,
            self.pair.seed,
            targets={name: arrays[name] for name in self.pair.targets},
            declared=declared,
        )
        return digest(self.weights)

    def record(
        self,
        out: str,
        kind: str,
        variant: str | None,
        follow: str | None,
        source: str | None,
        names: Mapping[str, str],
        made_from: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Record one trace; `kind` is pass or isolated. Taps go to the file as they come.

        `made_from`: what the parent knows of it, for the manifest.
        """
        assert self.subject
        subject = self.subject
        subject.variant = variant
        subject.weights = ulp_moved(self.weights, variant) if variant else self.weights
        handed = None
        if follow and "follow" in self.adapter.abilities:
            handed = Handed.from_trace(read_trace(follow))
        storing = self._storing(kind, variant)
        recording = Recording()

        def limit(name: str) -> int | None:
            return storing.limit(name, recording.inputs_of_kinks)

        with TraceWriter(out, self._manifest(kind, variant), limit) as writer:
            recording.sink = writer.add
            with self._told(""):
                if kind == "isolated":
                    assert source
                    fed = read_trace(source)
                    record_isolated(subject, fed, names, handed, recording)
                else:
                    first = self.precision == "float32"  # masks do not depend on the precision
                    record_pass(subject, handed, not variant, recording, random=first)
            recording.flush()
            writer.manifest |= recording.facts()
            if kind == "isolated":
                made = fed.manifest.get("operations") or {}
                writer.manifest["not_alone"] = not_alone(subject, names, made, writer.names)
            else:
                writer.manifest["uncalled"] = uncalled(subject)
                writer.manifest["containers"] = containers(subject)
            files = self.used.digests()  # a pass may import more
            writer.manifest["made_from"] = {**made_from, "files": files}
            writer.manifest["free"] = [] if handed is None else handed.free
            if "follow" in self.adapter.abilities:
                writer.manifest["branch"] = recording.branch.names(handed)
        return {
            "taps": len(writer.names),
            "notes": recording.notes,
            "files": files,
        }

    def trial(self, call: bool) -> list[str]:
        """Notes on how the model gets the inputs; with `call`, it is called where that is cheap.

        Raises:
            ParityError: the inputs do not fit, or the model fails; the text says where.
        """
        assert self.subject
        fed = [*self.pair.inputs]
        with self._told("inputs"):
            notes = check_arguments(getattr(self.model, self.adapter.entry or "-", None), fed)
        if self.pair.update and "update" in self.adapter.abilities:
            with self._told(""):
                check_update(self.adapter, self.pair.update)
        if call and self.adapter.trial:
            with self._told(""):
                call_once(self.subject)
        return notes

    def _storing(self, kind: str, variant: str | None) -> Storing:
        assert self.subject
        main = self.precision == "float32" and not variant
        return Storing(
            main=main,
            fed=main and self.name == "baseline" and kind == "pass",
            exact=not variant,
            weights=limit_of_weights(array.size for array in self.weights.values()),
            everything=bool(self.pair.layouts or self.subject.declared.layouts),
        )

    def _manifest(self, kind: str, variant: str | None) -> dict[str, Any]:
        """What is known before the recording."""
        assert self.subject
        return {
            "producer": self.producer | environment(),
            "precision": self.precision,
            "variant": variant,
            "case": "",
            "kind": kind,
            "subject": self.facts,
            "branch": None,
            "layouts": dict(self.subject.declared.layouts),
            "side": self.name,
            "abilities": sorted(self.adapter.abilities),
        }

    @contextmanager
    def _told(self, action: str) -> Iterator[None]:
        """Turn an error of the user's code into one that says side, action and line."""
        try:
            yield
        except ParityError as error:
            raise ParityError(f"{self.label}: {error}") from error
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            where = action or (self.subject.place if self.subject else "")
            text = reason_of(error)
            remedy = FLOAT64 if self.precision == "float64" else ""
            raise ParityError(
                f"{self.label}: {where}: {type(error).__name__}: {text} (at {place_of(error)})"
                f"{remedy}"
            ) from error


def producer_name(pair: Pair, side: str) -> str:
    """The framework; with the side, if both have the same framework."""
    frameworks = {pair.baseline.framework, pair.candidate.framework}
    own = pair.side(side).framework
    return own if len(frameworks) > 1 else f"{own} {side}"


def subject_facts(
    pair: Pair, weights: Mapping[str, Array], inputs: Mapping[str, Array]
) -> dict[str, Any]:
    """What is computed, for the manifest: equal on both sides."""
    loss = pair.loss if isinstance(pair.loss, str) else "function"
    settings = {
        "loss": loss,
        "update": dict(pair.update or {}),
        "modes": list(pair.modes),
        "seed": pair.seed,
    }
    return {
        "weights": array_facts(weights),
        "inputs": array_facts(inputs),
        "settings": settings,
    }


def save_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Arrays by name in one .npz file; it appears whole."""
    temporary = path.with_name(f".{path.name}.part")
    numbered = {f"array{number}": value for number, value in enumerate(arrays.values())}
    with open(temporary, "wb") as file:
        np.savez(file, **{"names": np.array([*arrays], dtype=str), **numbered})
    temporary.replace(path)


def load_arrays(path: Path | str) -> dict[str, Array]:
    """The arrays of `save_arrays`."""
    with np.load(path, allow_pickle=False) as stored:
        names = [str(name) for name in stored["names"]]
        return {name: stored[f"array{number}"] for number, name in enumerate(names)}
