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
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from parity.comparison.sketch import Array
from parity.errors import ParityError
from parity.recording.adapter import FRAMEWORKS, is_framework
from parity.recording.draw import Draw, draw_inputs
from parity.recording.places import place_of

SIDES = ("baseline", "candidate")
LOSSES = ("projection", "cross_entropy")
MODES = ("eval", "train")
LABELS = "labels"  # the target of `cross_entropy`
OPTIMISERS = ("sgd", "adamw")
BUILT = "built"  # `weights` of a pair whose two builders make the same weights
# The decay is large, so that a step whose gradient is zero by structure is still above rounding.
SGD = {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-2}

Loss = str | Callable[[Sequence[Any], Mapping[str, Any]], Any]


@dataclass(frozen=True)
class Side:
    """One of the two models.

    `framework`: torch, jittor, jax, onnx or numpy, or `package.module:Class` of an adapter.
    `build`: makes the model; it runs in the side's own environment, so it imports what it needs.
    `python`: the environment's interpreter, relative to the pair file (default: the running one).
    `replace`: class name, or regular expression of a
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

    `inputs`: name -> draw or array; the models get them in this order. `targets`: the same, but
    only the loss gets them. `loss`: projection, cross_entropy (of the target `labels`), or a
    function of both sides.
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
    targets: Mapping[str, Any] = field(default_factory=dict)

    def side(self, name: str) -> Side:
        """The side of a name."""
        return self.baseline if name == "baseline" else self.candidate

    def loss_of(self, name: str) -> Loss:
        """The loss of a side."""
        own = self.side(name).loss
        return self.loss if own is None else own

    def arrays(self) -> dict[str, Array]:
        """The numbers of all inputs and targets."""
        return draw_inputs({**self.inputs, **self.targets}, self.seed)


Expectation = tuple[
    str, Callable[[Any], bool], str
]  # field, whether a value fits, what is expected

WHOLE: tuple[Callable[[Any], bool], str] = (
    lambda v: type(v) is int and v >= 0,
    "a whole number, 0 or more",
)
NUMBERS: tuple[Callable[[Any], bool], str] = (
    lambda v: isinstance(v, Mapping) and all(isinstance(name, str) for name in v),
    "a dict: name -> normal(...), integers(...), uniform(...) or an array",
)
PATTERNS: tuple[Callable[[Any], bool], str] = (
    lambda v: (
        isinstance(v, Mapping) and all(isinstance(t, str) for pair in v.items() for t in pair)
    ),
    "a dict: pattern -> text",
)
OF_PAIR: tuple[Expectation, ...] = (
    ("inputs", *NUMBERS),
    ("inputs", lambda v: len(v) > 0, "at least one"),
    ("targets", *NUMBERS),
    ("loss", lambda v: _is_loss(v), "projection, cross_entropy or a function"),
    ("names", *PATTERNS),
    ("layouts", *PATTERNS),
    ("update", lambda v: v is None or isinstance(v, Mapping), "a dict or None"),
    (
        "update",
        lambda v: v is None or v.get("name") in OPTIMISERS,
        f"a `name` among {', '.join(OPTIMISERS)}",
    ),
    (
        "modes",
        lambda v: isinstance(v, list | tuple) and 0 < len(v) == sum(mode in MODES for mode in v),
        f"some of {', '.join(MODES)}",
    ),
    ("seed", *WHOLE),
    ("variants", *WHOLE),
    (
        "weights",
        lambda v: v in (None, BUILT) or (_is_path(v) and Path(v).suffix == ".npz"),
        f'an .npz file, "{BUILT}" or None',
    ),
    ("float64", lambda v: isinstance(v, bool), "True or False"),
    ("tag", lambda v: isinstance(v, str), "text"),
)
OF_SIDE: tuple[Expectation, ...] = (
    ("framework", is_framework, FRAMEWORKS),
    ("build", callable, "a function"),
    ("python", lambda v: v is None or _is_path(v), "the path of an interpreter"),
    (
        "replace",
        lambda v: isinstance(v, Mapping) and all(isinstance(n, str) and callable(v[n]) for n in v),
        "a dict: class name, or pattern of a path -> function",
    ),
    ("loss", lambda v: v is None or _is_loss(v), "projection, cross_entropy or a function"),
)


def _is_path(value: Any) -> bool:
    return isinstance(value, str | os.PathLike)


def _is_loss(value: Any) -> bool:
    return callable(value) or (isinstance(value, str) and value in LOSSES)


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
        for part, fits, expected in OF_SIDE:
            value = getattr(side, part)
            expect(fits(value), f"{name}: {part}", expected, value)
    for part, fits, expected in OF_PAIR:
        expect(fits(getattr(pair, part)), part, expected, getattr(pair, part))
    for part in ("inputs", "targets"):
        for name, value in getattr(pair, part).items():
            fits_one = isinstance(value, Draw) or hasattr(value, "__array__")
            expected = "normal(...), integers(...), uniform(...) or an array"
            expect(fits_one, f"{part}: {name}", expected, value)
    both = [name for name in pair.targets if name in pair.inputs]
    expect(not both, "targets", "names that no input has", both)
    if "cross_entropy" in [
        pair.loss_of(name) for name in SIDES if not callable(pair.loss_of(name))
    ]:
        _check_labels(pair, expect)
    checked: Pair = pair
    return checked


def _check_labels(pair: Pair, expect: Callable[[bool, str, str, Any], None]) -> None:
    where = "targets={'labels': integers(classes, n)}"
    expect(LABELS in pair.targets, "targets", f"{where} for cross_entropy", [*pair.targets])
    labels = pair.targets[LABELS]
    floats = isinstance(labels, Draw) and labels.kind != "integers"
    floats = floats or getattr(getattr(labels, "dtype", None), "kind", "") == "f"
    expect(not floats, "targets: labels", "whole numbers: integers(classes, n)", labels)


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
    except ParityError as error:
        raise ParityError(f"{path}: {error} (at {place_of(error)})") from error
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
