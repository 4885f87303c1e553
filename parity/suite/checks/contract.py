"""The contract of `transfg_core/backend.py`: what every backend must do."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import numpy as np

from parity.cases.case import params_of
from parity.suite.checks.bits import same
from parity.suite.checks.case import CHECKS, with_gradient
from transfg_core.backend import Backend, Batch
from transfg_core.config.sections import Config
from transfg_core.data.transforms import normalise
from transfg_core.train import split_batch


def contract(backend: Backend, config: Config, batches: Sequence[Batch]) -> dict[str, Any]:
    """Claims about any backend, on a model without dropout; runs 3 updates."""
    batch, claims = batches[0], {}
    copy = deepcopy(batch)
    start = backend.state()
    passed = backend.trace(batch)
    claims["trace changes nothing"] = same(backend.state(), start)
    trained = backend.trace(batch, training=True)
    claims["training mode alone changes nothing"] = same(trained, passed)
    twice = [backend.fetch(backend.eval_step(batch.images)) for _ in range(2)]
    claims["evaluation repeats"] = same(*twice)
    backend.fetch(backend.rollout(batch.images))
    backend.fetch(backend.saliency(batch.images))
    claims["evaluation changes nothing"] = same(backend.state(), start)
    trainable = with_gradient(params_of(backend.state()), config.model)
    claims |= {f"gradient/{name}": bool(passed[f"grad/{name}"].any()) for name in trainable}
    counts, rates = [int(start["optim/updates"])], (0.0, config.optim.lr, config.optim.lr)
    losses: list[float] = []
    for lr in rates:
        before = params_of(backend.state())
        report = backend.fetch(backend.train_step(split_batch(batch, 1), lr))
        after = params_of(backend.state())
        losses.append(float(report["loss"]))
        counts.append(int(backend.state()["optim/updates"]))
        if lr == 0:
            claims["an update with rate 0 moves nothing"] = same(before, after)
        elif len(counts) == 3:
            claims |= {f"moves/{n}": bool((after[n] != before[n]).any()) for n in trainable}
    claims["without dropout a loss repeats"] = losses[0] == losses[1]
    claims["uint8 images are normalised to the same bits"] = normalises(backend, config, batch)
    claims["inputs are left alone"] = same(given(batch), given(copy))
    trained_state = backend.state()
    backend.load_params(CHECKS.params())
    claims["loading resets the optimiser"] = same(backend.state(), start)
    backend.load_state(trained_state)
    claims["state is taken up"] = same(backend.state(), trained_state)
    return claims | {"updates": np.array(counts)}


def given(batch: Batch) -> dict[str, Any]:
    """The arrays of a batch by name; none where there are no targets."""
    return {name: value for name, value in batch._asdict().items() if value is not None}


def normalises(backend: Backend, config: Config, batch: Batch) -> bool:
    """Whether uint8 images give the traces and evaluations of images that NumPy normalised."""
    size = (len(batch.labels), *batch.images.shape[2:], 3)
    pixels = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    images = normalise(pixels, config.data)
    return same(
        backend.trace(Batch(pixels, batch.labels)), backend.trace(Batch(images, batch.labels))
    ) and same(backend.fetch(backend.eval_step(pixels)), backend.fetch(backend.eval_step(images)))
