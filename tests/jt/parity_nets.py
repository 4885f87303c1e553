"""Record small Jittor models for test_parity_jittor.py: python parity_nets.py FOLDER PRECISION

A process of its own: Jittor must not share one with PyTorch, nor float32 with float64.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from parity.errors import ParityError
from parity.recording.choices import ELEMENTWISE, choose, coefficients
from parity.recording.following import Handed
from parity.recording.frameworks.jittor.adapter import JittorAdapter
from parity.recording.passes import record_pass
from parity.recording.subject import Subject

UPDATE = {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}
LIMITS = {"min": -1.0, "max": 2.0}


def models(jt: Any) -> dict[str, Any]:
    """Name -> class of a model."""
    nn = jt.nn

    class Everything(nn.Module):
        """What recorders trip over; the comments say what."""

        def __init__(self) -> None:
            self.conv = nn.Conv(3, 4, 3, padding=1, bias=False)
            self.norm = nn.BatchNorm(4)
            self.relu = nn.ReLU()  # called twice
            self.pool = nn.MaxPool2d(2, 2)  # a module inside a module
            self.drop = nn.Dropout(0.5)
            self.head = nn.Sequential(nn.Flatten(), nn.Linear(36, 5))
            self.unused = nn.Linear(2, 2)
            self.frozen = nn.Linear(5, 5, bias=False)
            with jt.no_grad():
                self.frozen.weight.assign(jt.ones((5, 5)))
            self._hidden = jt.ones((2,))

        def execute(self, x: Any) -> Any:
            x = self.relu(self.norm(self.conv(x)))
            x += 1.0  # changes the module's output in place
            x = self.drop(self.pool(self.relu(x - 2.0)))
            x = nn.dropout(x, 0.5, self.is_training())
            x = nn.relu6(jt.clamp(x, 0.25, 9.0))
            logits = self.head(x).float_auto()
            with jt.no_grad():
                extra = nn.softmax(logits, dim=1)
            return self.frozen(logits), {"extra": extra}

    class MadeInside(nn.Module):
        """A dropout that is made in each call never gets the training mode."""

        def __init__(self) -> None:
            self.linear = nn.Linear(4, 4)

        def execute(self, x: Any) -> Any:
            return nn.Dropout(0.5)(self.linear(x))

    class Evaluated(nn.Module):
        """Its builder called `eval()`, which stops gradients; one is stopped on purpose."""

        def __init__(self) -> None:
            self.linear = nn.Linear(4, 4)
            self.linear.bias.stop_grad()
            self.same = nn.Identity()
            self.eval()

        def execute(self, x: Any) -> Any:
            y = self.linear(x)
            return self.same(y) * y

    class Corner(nn.Module):
        """A ReLU; the input of the model is zero."""

        def __init__(self) -> None:
            self.weight = jt.ones((4,))

        def execute(self, x: Any) -> Any:
            return nn.relu(x * self.weight)

    class Listed(nn.Module):
        """Modules in a plain list."""

        def __init__(self) -> None:
            self.blocks = [nn.Linear(4, 4)]

        def execute(self, x: Any) -> Any:
            return self.blocks[0](x)

    class Flagged(nn.Module):
        """Its first call sets a flag; a buffer that is not saved moves in every call."""

        def __init__(self) -> None:
            self.weight, self.done, self._calls = jt.ones((4,)), False, jt.zeros((4,))
            self.average = jt.zeros((4,))
            self.average.persistent = False

        def execute(self, x: Any) -> Any:
            shift = 0.0 if self.done else 1.0
            self.done = True
            y = x * self.weight + shift - self.average - self._calls
            self.average = self.average + 1.0
            self.average.persistent = False
            self._calls.assign(self._calls + 1.0)
            return y

    classes = (Everything, MadeInside, Evaluated, Corner, Listed, Flagged)
    return {c.__name__: c for c in classes}


def record(
    adapter: JittorAdapter, build: Any, shape: tuple[int, ...], handed: Any = None, size: float = 1
) -> Any:
    """Facts of the modules and a recording of one model; `size` of the numbers of its input."""
    rng = np.random.default_rng(0)
    model = adapter.finish_build(build())
    weights = {
        name: entry.array
        if name == "weight"
        else rng.uniform(0.5, 1.5, entry.array.shape) * rng.choice([-1, 1], entry.array.shape)
        if entry.array.ndim > 1
        else rng.uniform(0.5, 1.5, entry.array.shape)
        for name, entry in adapter.state(model).items()
    }
    adapter.load(model, weights)
    read = {name: entry.array for name, entry in adapter.state(model).items()}
    inputs = {"x": size * rng.standard_normal(shape).astype(np.float32)}
    subject = Subject(adapter, model, inputs, read, update=UPDATE)
    return subject, record_pass(subject, handed)


def from_a_script(model: Any, folder: Path) -> dict[str, Any]:
    """What `parity.jittor.record` writes, and what it leaves of a model in evaluation mode."""
    from parity.jittor import record as record_in_script

    def state() -> list[Any]:
        flags = [module.is_training() for module in model.modules()]
        return [flags, [(p.is_stop_grad(), p.numpy().tolist()) for p in model.parameters()]]

    before = [state(), np.random.get_state()[1].tolist()]
    inputs = {"x": np.ones((2, 4), np.float32)}
    record_in_script(folder / "script.npz", model, inputs, modes=("eval", "train"), update=UPDATE)
    after = [state(), np.random.get_state()[1].tolist()]
    try:
        record_in_script(folder / "script64.npz", model, inputs, precision="float64")
        refused = ""
    except ParityError as error:
        refused = str(error)
    return {"unchanged": before == after, "refused": refused}


def slopes_at_corners(adapter: JittorAdapter) -> dict[str, Any]:
    """Kind -> slopes that Jittor has at and beside each corner, and those of the own choice."""
    jt = adapter.jittor
    functions = {
        "relu": (jt.nn.relu, {}, [0]),
        "relu6": (jt.nn.relu6, {}, [0, 6]),
        "leaky relu": (lambda x: jt.nn.leaky_relu(x, 0.25), {"slope": 0.25}, [0]),
        "clamp": (lambda x: jt.clamp(x, *LIMITS.values()), LIMITS, [-1, 2]),
        "abs": (lambda x: x.abs(), {}, [0]),
    }
    found = {}
    for kind, (function, settings, corners) in functions.items():
        assert kind in ELEMENTWISE
        x = np.array([c + d for c in corners for d in (-0.5, 0.0, 0.5)], np.float32)
        native = adapter.tensor(x)
        slope = adapter.gradients([function(native).sum()], [native])[0]
        own = adapter.choose(kind, settings, [native])
        own = choose(kind, settings, [x]) if own is None else own
        found[kind] = [np.asarray(slope).tolist(), coefficients(kind, settings, own)[1].tolist()]
    for name in ("maximum", "minimum"):
        x, y = np.array([0, 1, 2], np.float32), np.array([1, 1, 1], np.float32)
        natives = [adapter.tensor(x), adapter.tensor(y)]
        slope = adapter.gradients([getattr(jt, name)(*natives).sum()], natives)[0]
        own = adapter.choose(name, {}, natives)
        own = choose(name, {}, [x, y]) if own is None else own
        takes_x = own if name == "maximum" else 1 - own
        found[name] = [np.asarray(slope).tolist(), takes_x.astype(float).tolist()]
    return found


def facts_of_layers(adapter: JittorAdapter) -> list[list[Any]]:
    """Class, operation, settings and source of one module of each kind."""
    nn = adapter.jittor.nn

    class Scaled(nn.Conv):
        def execute(self, x: Any) -> Any:
            return super().execute(x) * 2.0

    layers = nn.Sequential(
        nn.Conv(4, 4, (3, 1), stride=2, padding=(1, 0), dilation=1, groups=2),
        nn.Conv1d(2, 2, 3, padding=1),
        nn.ConvTranspose(2, 2, 3, stride=2, output_padding=1),
        nn.LayerNorm((3, 4), eps=1e-6),
        nn.GroupNorm(2, 4),
        nn.LeakyReLU(0.25),
        nn.GELU(),
        nn.Pool(3, 2, 1, op="mean", count_include_pad=False, ceil_mode=True),
        nn.AvgPool2d(2),
        nn.AdaptiveAvgPool2d((None, 2)),
        nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
        nn.Softmax(dim=1),
        Scaled(2, 2, 1),
    )
    modules = [m for m in adapter.modules(layers) if m.path]
    return [[m.path, m.class_name, m.operation, m.settings, m.source] for m in modules]


def main(folder: Path, precision: str) -> None:
    """Write every recording as NAME.npz, and the rest into facts.json."""
    adapter = JittorAdapter()
    facts: dict[str, Any] = {"producer": adapter.start(precision)}
    adapter.prepare_build()
    built = models(adapter.jittor)
    subject, recording = record(adapter, built["Everything"], (2, 3, 6, 6))
    np.savez(folder / "Everything.npz", **recording.taps)
    facts["operations"] = recording.operations
    facts["notes"] = recording.notes
    facts["kinks"] = recording.kinks
    facts["modules"] = [[m.path, m.is_leaf, m.source] for m in subject.modules.values()]
    facts["state"] = {n: e.kind for n, e in adapter.state(subject.model).items()}
    if precision == "float32":
        _, made = record(adapter, built["MadeInside"], (2, 4))
        facts["made inside"] = bool(made.taps["training/random"])
        _, free = record(adapter, built["Corner"], (2, 4), size=0)
        other = np.ones((2, 4), np.uint8)
        names = [tap.split("/")[1] for tap in free.kinks if tap.startswith("choices/")]
        handed = Handed("a branch", {"choices": {names[0]: ("relu", other)}})
        _, followed = record(adapter, built["Corner"], (2, 4), handed, size=0)
        for name, kept in (("free", free), ("followed", followed)):
            np.savez(folder / f"{name}.npz", **kept.taps)
        _, evaluated = record(adapter, built["Evaluated"], (2, 4))
        np.savez(folder / "evaluated.npz", **evaluated.taps)
        _, flagged = record(adapter, built["Flagged"], (2, 4))
        np.savez(folder / "flagged.npz", **flagged.taps)
        facts["script"] = from_a_script(built["Evaluated"](), folder)
        facts["slopes"] = slopes_at_corners(adapter)
        facts["layers"] = facts_of_layers(adapter)
        try:
            adapter.finish_build(built["Listed"]())
        except ParityError as error:
            facts["listed"] = str(error)
    (folder / "facts.json").write_text(json.dumps(facts, default=str), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
