"""Suites of a backend that computes nothing: seeded noise with the right names and shapes."""

import json
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from parity.cases.case import CASES
from parity.cases.golden import GOLDENS, Golden
from parity.cases.variants import Variant
from parity.comparison.trace import MANIFEST
from parity.suite import record, recorder
from parity.suite import run as suite_run
from parity.suite.jobs import Job, as_argument
from parity.suite.plan import Suite
from transfg_core.backend import FLOAT_TYPES, Array, Arrays
from transfg_core.config.sections import Config
from transfg_core.models.layout import choice_taps, param_shapes

RAMP = np.arange(1.0, 4.0)


@cache
def noise(name: str, *shape: int) -> Array:
    """Values that depend on the name alone, float64."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return rng.standard_normal(shape)


def golden_of(config: Config) -> Golden | None:
    """The published trace with this configuration; None if there is none."""
    places = {(golden.config().data.crop, golden.config().model): golden for golden in GOLDENS}
    return places.get((config.data.crop, config.model))


class NoiseBackend:
    """Every tap and slot; gradients of key biases are zero except for rounding.

    Other weights round a quarter of the numbers otherwise. For a golden case it holds the arrays of
    the published program.
    """

    def __init__(self, config: Config, name: str = "noise") -> None:
        self.config, self.name = config, name
        self.kind = FLOAT_TYPES[config.run.precision]
        self.shapes = param_shapes(config.model, config.data.crop)
        self.choices = choice_taps(config.model)
        self.slots = ("momentum",) if config.optim.name == "sgd" else ("exp_avg", "exp_avg_sq")
        golden = golden_of(config)
        self.known: Arrays = golden.trace() if golden else {}
        self.updates = 0

    def cast(self, arrays: Arrays) -> Arrays:
        """Floating-point arrays in the type of this precision."""
        return {
            name: value.astype(self.kind) if value.dtype.kind == "f" else value
            for name, value in arrays.items()
        }

    def rounded(self, arrays: Arrays) -> Arrays:
        """The arrays in the type of this precision; some numbers move by one unit."""
        rng = np.random.default_rng([self.rounding, self.updates])
        return {
            name: np.where(
                rng.random(value.shape) < 0.25, np.nextafter(value, value.dtype.type(9)), value
            )
            if value.dtype.kind == "f" and not (name.startswith("param/") and not self.updates)
            else value
            for name, value in self.cast(arrays).items()
        }

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        return self.shapes

    def load_params(self, arrays: Arrays) -> None:
        assert {name: value.shape for name, value in arrays.items()} == self.shapes
        self.start, self.updates = self.cast(arrays), 0
        text = b"".join(value.astype("f8").tobytes() for value in arrays.values())
        self.rounding = zlib.crc32(text)

    def load_state(self, arrays: Arrays) -> None:
        assert self.state().keys() == arrays.keys()
        self.updates = int(arrays["optim/updates"])

    def state(self) -> Arrays:
        """Each update adds the same noise."""
        arrays: Arrays = {}
        for name, shape in self.shapes.items():
            value = self.start[name] + self.updates * noise(f"step/{name}", *shape)
            if self.known and self.updates:
                value = self.known[f"after/{name}"]
            arrays[f"param/{name}"] = value
        for slot in self.slots:
            arrays |= {
                f"{slot}/{n}": self.updates * noise(slot + n, *s) for n, s in self.shapes.items()
            }
        return self.rounded(arrays) | {"optim/updates": np.array(self.updates)}

    def train_step(self, micro_batches: Any, lr: float, parts: Any = None) -> Arrays:
        self.updates += 1
        names = ("loss", "cross_entropy", "contrastive", "accuracy", "grad_norm")
        return self.rounded({name: self.updates * noise(name, 1)[0] for name in names})

    def fetch(self, handle: Arrays) -> Arrays:
        return dict(handle)

    def eval_step(self, images: Array) -> Arrays:
        taps = self.activations()
        return {n: taps[n] for n in ("logits", "part_index", "part_scores") if n in taps}

    def saliency(self, images: Array) -> Arrays:
        return self.rounded({"saliency": noise("saliency", len(images), *images.shape[2:])})

    def rollout(self, images: Array) -> Arrays:
        return self.rounded({"rollout": noise("rollout", len(images), self.tokens() - 1)})

    def tokens(self) -> int:
        """T."""
        return self.shapes["pos_embed"][1]

    def activations(self) -> Arrays:
        """The taps of a pass, in data order."""
        model = self.config.model
        assert model.width and model.heads and model.depth and model.classes
        size, width, heads, tokens = 6, model.width, model.heads, self.tokens()
        parts = model.placement != "none"
        taps = {"patch_embed": noise("patches", size, tokens - 1, width)}
        blocks = [f"block{depth:02d}" for depth in range(model.depth - parts)]
        for name in ("tokens", "embed", "block00.attn.query", *blocks):
            taps[name] = noise(name, size, tokens, width)
        if parts:
            taps["part_scores"] = noise("part_scores", size, heads, tokens - 1)
            taps["part_index"] = taps["part_scores"].argmax(axis=-1) + 1
            for name in ("part_tokens", "part_layer", "part_norm"):
                taps[name] = noise(name, size, heads + 1, width)
        else:
            taps["norm"] = noise("norm", size, tokens, width)
        taps["features"] = noise("features", size, width)
        taps["logits"] = noise("logits", size, model.classes)
        return self.rounded(taps | {n: v for n, v in self.known.items() if n in taps})

    def trace(
        self, batch: Any, replay: Any = None, fine: bool = False, training: bool = False
    ) -> Arrays:
        taps = {n: v for n, v in self.activations().items() if fine or "." not in n}
        grads = {
            f"d/{n}": noise(f"d/{n}", *v.shape) for n, v in taps.items() if n not in self.choices
        }
        zero = 0.1 * np.finfo(self.kind).eps
        for name, shape in self.shapes.items():
            size = zero if "key.bias" in name else 1.0
            grads[f"grad/{name}"] = size * noise(name, *shape)
        losses = ("loss", "cross_entropy", "contrastive", "grad_norm", "clipped_norm")
        found = taps | grads | {name: noise(name, 1)[0] for name in losses}
        return self.rounded(found | {n: v for n, v in self.known.items() if n in found})

    def device_info(self) -> dict[str, Any]:
        facts = {"backend": self.name, "version": "1", "device": "none", "threads": 1}
        return facts | {"peak_memory_bytes": 1}


def convert_noise(checkpoint: str, target: Path) -> None:
    """Takes the place of the converter of the authors' checkpoints."""
    (golden,) = (each for each in GOLDENS if str(each.checkpoint) == checkpoint)
    config = golden.config()
    shapes = param_shapes(config.model, config.data.crop)
    save_file({n: noise(n, *s).astype(np.float32) for n, s in shapes.items()}, target)


def use_noise(monkeypatch: pytest.MonkeyPatch) -> list[list[Job]]:
    """Record suites in this process, from noise; returns the jobs of each child process."""
    started: list[list[Job]] = []

    def start_child(jobs: list[Job], threads: int | None = None) -> None:
        started.append(list(jobs))
        as_argument(list(jobs))  # must be JSON
        for job in jobs:
            record.record(job)

    monkeypatch.setattr(recorder, "load_backend", lambda name, config: NoiseBackend(config, name))
    monkeypatch.setattr(suite_run, "convert", convert_noise)
    monkeypatch.setattr(suite_run, "start_child", start_child)
    # a symmetry would change noise
    monkeypatch.setattr(Variant, "_permute", lambda self, value, axes, inverse=False: value)
    claims = {"contract/holds": np.array(True), "data/crc": np.array(7), "loading/x": RAMP}
    monkeypatch.setitem(record.KINDS, "checks", lambda recorder: claims)
    return started


def suite_of(folder: Path, cases: tuple[str, ...] = (), goldens: tuple[str, ...] = ()) -> Suite:
    """A suite of some cases and golden cases by name."""
    return Suite(
        folder,
        [case for case in CASES if case.name in cases],
        [golden for golden in GOLDENS if golden.name in goldens],
    )


def change(path: Path, tap: str, function: Any) -> None:
    """Replace one tap of a trace file by a function of it; a result of None removes the tap."""
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    manifest = json.loads(arrays.pop(MANIFEST).tobytes())
    taps = dict(zip(manifest["taps"], arrays.values(), strict=True))
    value = function(taps[tap])
    if value is None:
        del taps[tap], manifest["taps"][tap]
    else:
        taps[tap] = value
        manifest["taps"][tap] |= {"shape": value.shape, "dtype": value.dtype.str}
    text = np.frombuffer(json.dumps(manifest).encode(), np.uint8)
    numbered = {f"taps/{i}": value for i, value in enumerate(taps.values())}
    np.savez(path, **{MANIFEST: text}, **numbered)
