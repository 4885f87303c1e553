"""The saliency of pixels against differences of logits, for every architecture of the suite."""

import numpy as np
import pytest

from parity.cases.case import BY_NAME
from transfg_core.backend import load_backend
from transfg_core.params.groups import trained_params

NAMES = ["convnet", "vit", "hybrid", "resnet", "swin", "swinfc-options"]
STEP = 1e-2


@pytest.mark.parametrize("name", NAMES)
def test_saliency_is_the_slope_of_the_largest_logit(twin, name):
    """Central differences at the pixels that matter most; the batch does not matter."""
    case = BY_NAME[name]
    backend, images = twin.backend(case), case.batches()[0].images[:2]
    before = backend.state()
    found = backend.fetch(backend.saliency(images))
    assert list(found) == ["saliency"]
    (saliency,) = found.values()
    assert saliency.shape == (2, *images.shape[2:]) and saliency.dtype == np.float32
    best = backend.fetch(backend.eval_step(images))["logits"].argmax(-1)
    for image, row in enumerate(saliency):
        place = np.unravel_index(row.argmax(), row.shape)
        slopes = []
        for colour in range(3):
            moved = np.repeat(images[image : image + 1], 2, axis=0)
            moved[:, colour, *place] += np.array([STEP, -STEP], np.float32)
            logits = backend.fetch(backend.eval_step(moved))["logits"][:, best[image]]
            slopes.append(abs(float(logits[0]) - float(logits[1])) / (2 * STEP))
        assert max(slopes) == pytest.approx(row.max(), rel=0.05)
    alone = backend.fetch(backend.saliency(images[1:]))["saliency"]
    assert np.allclose(alone[0], saliency[1], rtol=1e-4, atol=1e-6)
    after = backend.state()
    assert all(np.array_equal(value, after[key]) for key, value in before.items())


def test_saliency_of_averages_and_recomputed_blocks(twin):
    """It uses the averaged parameters, and is the same with gradient checkpointing."""
    case = BY_NAME["resnet"]
    config, batch = case.config(), case.batches()[0]
    optim = config.optim.model_copy(update={"ema": 0.9})
    backends = []
    for recomputed in (False, True):
        run = config.run.model_copy(update={"grad_checkpointing": recomputed})
        own = config.model_copy(update={"optim": optim, "run": run})
        backends.append(load_backend(twin.name, own))
        backends[-1].load_params(case.params())
        for _ in range(2):
            backends[-1].train_step([batch], 0.05)
    first, second = (b.fetch(b.saliency(batch.images))["saliency"] for b in backends)
    assert np.allclose(first, second, rtol=1e-3, atol=1e-5)
    state = backends[0].state()
    averaged = {name: state[f"param/{name}"] for name in backends[0].param_shapes()}
    averaged |= {n: state[f"ema/{n}"] for n in trained_params(config.model, optim)}
    plain = load_backend(twin.name, config)
    plain.load_params(averaged)
    third = plain.fetch(plain.saliency(batch.images))["saliency"]
    assert np.allclose(first, third, rtol=1e-4, atol=1e-6)
    plain.load_params({name: state[f"param/{name}"] for name in averaged})
    other = plain.fetch(plain.saliency(batch.images))["saliency"]
    assert not np.allclose(first, other, rtol=1e-2)
