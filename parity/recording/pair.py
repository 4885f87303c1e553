"""A pair of models in one short file: two builders, the inputs, and what else they need.

from parity import Pair, Side, normal

pair = Pair(
    baseline=Side("torch", build_a, python="envs/torch/bin/python"),
    candidate=Side("jittor", build_b, python="envs/jittor/bin/python"),
    inputs={"x": normal(2, 3, 64, 64)},
)
"""

import difflib
import importlib.util
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from parity.errors import ParityError
from parity.recording.adapter import FRAMEWORKS, is_framework
from parity.recording.draw import Draw

SIDES = ("baseline", "candidate")
LOSSES = ("projection", "cross_entropy")
MODES = ("eval", "train")
OPTIMISERS = ("sgd", "adamw")
BUILT = "built"  # `weights` of a pair whose two builders make the same weights
# The decay is large, so that a step whose gradient is zero by structure is still above rounding.
SGD = {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-2}

Loss = str | Callable[[Sequence[Any], Mapping[str, Any]], Any]


@dataclass(frozen=True)
class Side:
    """One of the two models.

    `framework`: torch, jittor or numpy. `build`: makes the model; it runs in the side's own
    environment, so it imports what it needs. `python`: the environment's interpreter, relative to
    the pair file (default: the running one). `replace`: class name, or regular expression of a
    path -> function(module) -> module, to record behind a known cause. `loss`: this side's own
    function (outputs, inputs) -> scalar.
    """

    framework: str
    build: Callable[[], Any]
    python: str | None = None
    replace: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    loss: Loss | None = None


@dataclass(frozen=True)
class Pair:
    """Two models that should compute the same function, and how to run them.

    `inputs`: name -> draw or array; the models get them in this order, without `labels`.
    `loss`: projection, cross_entropy (with an input `labels`), or a function of both sides.
    `names`: patterns of the candidate's parameter and module paths -> the baseline's.
    `layouts`: declared order of axes, also of inputs. `update`: optimiser of one step, or None.
    `modes`: eval and train. `weights`: an .npz file by the baseline's names instead of drawn ones,
    or `built`: each builder's own. `variants`: how many recordings of the baseline measure its
    noise. `tag`: anything else that the models depend on; another tag makes new recordings.
    """

    baseline: Side
    candidate: Side
    inputs: Mapping[str, Any]
    loss: Loss = "projection"
    names: Mapping[str, str] = field(default_factory=dict)
    layouts: Mapping[str, Any] = field(default_factory=dict)
    update: Mapping[str, Any] | None = field(default_factory=lambda: dict(SGD))
    modes: Sequence[str] = MODES
    seed: int = 0
    weights: str | None = None
    float64: bool = True
    variants: int = 3
    tag: str = ""

    def side(self, name: str) -> Side:
        """The side of a name."""
        return self.baseline if name == "baseline" else self.candidate

    def loss_of(self, name: str) -> Loss:
        """The loss of a side."""
        own = self.side(name).loss
        return self.loss if own is None else own


def check_pair(pair: Any, place: str) -> Pair:
    """The pair, if its fields are as they must be.

    Raises:
        ParityError: one is not; the text says which, and what was expected.
    """

    def expect(truth: bool, where: str, expected: str, found: Any) -> None:
        if not truth:
            raise ParityError(f"{place}: {where}: expected {expected}, found {found!r}")

    expect(isinstance(pair, Pair), "pair", "`pair = Pair(...)`", type(pair).__name__)
    for name in SIDES:
        side = getattr(pair, name)
        expect(isinstance(side, Side), name, "Side(framework, build)", side)
        known = is_framework(side.framework)
        expect(known, f"{name}: framework", FRAMEWORKS, side.framework)
        expect(callable(side.build), f"{name}: build", "a function", side.build)
        loss = pair.loss_of(name)
        expect(
            callable(loss) or loss in LOSSES,
            "loss",
            "projection, cross_entropy or a function",
            loss,
        )
        if loss == "cross_entropy":
            expect("labels" in pair.inputs, "inputs", "an input `labels`", [*pair.inputs])
            labels = pair.inputs["labels"]
            floats = isinstance(labels, Draw) and labels.kind != "integers"
            floats = floats or getattr(getattr(labels, "dtype", None), "kind", "") == "f"
            expect(not floats, "inputs: labels", "whole numbers: integers(classes, n)", labels)
    expect(
        isinstance(pair.inputs, Mapping) and len(pair.inputs) > 0,
        "inputs",
        "at least one",
        pair.inputs,
    )
    for name, value in pair.inputs.items():
        fits = isinstance(value, Draw) or hasattr(value, "__array__")
        expect(
            fits, f"inputs: {name}", "normal(...), integers(...), uniform(...) or an array", value
        )
    fits = bool(pair.modes) and set(pair.modes) <= set(MODES)
    expect(fits, "modes", "some of eval, train", pair.modes)
    if pair.update is not None:
        expect(isinstance(pair.update, Mapping), "update", "a dict or None", pair.update)
        name = pair.update.get("name")
        expect(name in OPTIMISERS, "update: name", f"one of {', '.join(OPTIMISERS)}", name)
    expect(
        type(pair.variants) is int and pair.variants >= 0, "variants", "0 or more", pair.variants
    )
    checked: Pair = pair
    return checked


def nearest_field(text: str) -> str:
    """What to write instead of a field that `Pair` or `Side` does not have, from Python's error."""
    found = re.match(r"(Pair|Side)\.__init__\(\) got an unexpected keyword argument '(\w+)'", text)
    if not found:
        return ""
    names = [entry.name for entry in fields(Pair if found[1] == "Pair" else Side)]
    near = difflib.get_close_matches(found[2], names, 1)
    meant = f"; do you mean `{near[0]}`?" if near else ""
    return f"{meant}; the fields of {found[1]} are {', '.join(names)}"


def load_pair(path: Path | str) -> Pair:
    """The pair that a file defines as `pair`; its folder can be imported from.

    Raises:
        ParityError: the file is missing, fails, or defines no proper pair.
    """
    path = Path(path).resolve()
    if not path.is_file():
        raise ParityError(f"{path}: no such pair file")
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location("parity_pair", path)
    if not spec or not spec.loader:
        raise ParityError(f"{path}: expected a Python file, such as pair.py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        line = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(line.filename).name}:{line.lineno}"
        remedy = ""
        if isinstance(error, ImportError):
            remedy = "; this file is read in every environment: import frameworks in the builders"
        elif isinstance(error, TypeError):
            remedy = nearest_field(str(error))
        raise ParityError(
            f"{path}: {type(error).__name__}: {error} (at {place}){remedy}"
        ) from error
    if not hasattr(module, "pair"):
        raise ParityError(f"{path}: expected `pair = Pair(...)`, found no `pair`")
    return check_pair(module.pair, str(path))
