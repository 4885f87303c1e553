"""Traces as the recorder writes them, of a backend that computes nothing: seeded noise."""

import zlib
from pathlib import Path
from typing import Any

import numpy as np

from parity import record
from parity.cases import CASES
from parity.golden import GOLDENS
from parity.suite import GOLDEN_FORWARD, TWINS
from transfg_core.backend import Array, Arrays
from transfg_core.config import Config
from transfg_core.params import param_shapes


def noise(name: str, *shape: int) -> Array:
    """Values that depend on the name alone."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return rng.standard_normal(shape).astype(np.float32)


class NoiseBackend:
    """Taps and slots of the right names and shapes; key biases have gradients of 1e-8."""

    def __init__(self, config: Config) -> None:
        self.model = config.model
        self.shapes = param_shapes(config.model, config.data.crop)
        self.slots = ("momentum",) if config.optim.name == "sgd" else ("exp_avg", "exp_avg_sq")

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        return self.shapes

    def load_params(self, arrays: Arrays) -> None:
        assert {name: value.shape for name, value in arrays.items()} == self.shapes

    load_state = fetch = lambda self, arrays: arrays

    def state(self) -> Arrays:
        slots = ("param", *self.slots)
        arrays = {
            f"{slot}/{n}": noise(slot + n, *s) for slot in slots for n, s in self.shapes.items()
        }
        return arrays | {"optim/updates": np.array(1)}

    def train_step(self, micro_batches: Any, lr: float) -> Arrays:
        names = ("loss", "cross_entropy", "contrastive", "accuracy", "grad_norm")
        return {name: noise(name, 1)[0] for name in names}

    def eval_step(self, images: Array) -> Arrays:
        parts = {} if self.model.placement == "none" else {"part_index": np.ones((6, 3), np.int64)}
        return {"logits": noise("logits", 6, 7)} | parts

    def trace(self, batch: Any) -> Arrays:
        taps = {
            name: noise(name, 6, 5, 4) for name in ("patch_embed", "embed", "block00", "logits")
        }
        losses = ("loss", "cross_entropy", "contrastive", "grad_norm")
        small = {name: 1e-8 if "key.bias" in name else 1.0 for name in self.shapes}
        grads = {f"grad/{n}": small[n] * noise(n, *s) for n, s in self.shapes.items()}
        index = self.eval_step(None).keys() & {"part_index"}
        parts = {name: np.ones((6, 3), np.int64) for name in index}
        return taps | parts | {name: noise(name, 1)[0] for name in losses} | grads


def record_noise(folder: Path, monkeypatch: Any) -> None:
    """The files of a whole ladder in which both backends agree to the bit."""
    monkeypatch.setattr(record, "load_backend", lambda name, config: NoiseBackend(config))
    for case in CASES:
        for name in TWINS:
            trace = record.record_case(case, name)
            np.savez(record.trace_path(folder, "case", case.name, name), **trace)
        for name, owner in (TWINS, TWINS[::-1]):
            trace = record.record_cross_load(case, name, folder, owner)
            np.savez(record.trace_path(folder, "cross", case.name, name), **trace)
    for golden in GOLDENS:
        stored = golden.trace()
        trace = {f"forward/{name}": stored[name] for name in GOLDEN_FORWARD}
        score = trace.pop("forward/part_score")[..., None]
        trace["forward/part_scores"] = np.concatenate([score, score - 1], axis=-1)
        trace["losses/loss"] = stored["loss"].astype(np.float32)
        trace |= {f"gradients/{n}": v for n, v in stored.items() if n.startswith("grad/")}
        trace |= {f"updates/{n}": stored[n] for n in ("train_lrs", "train_losses")}
        trace |= {f"updates/{n}": v for n, v in stored.items() if n.startswith("after/")}
        for name in TWINS:
            np.savez(record.trace_path(folder, "golden", golden.name, name), **trace)


def change(path: Path, key: str, function: Any) -> None:
    """Replace one array of a trace file by a function of it; None takes it away."""
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    value = function(arrays.pop(key))
    if value is not None:
        arrays[key] = value
    np.savez(path, **arrays)
