"""Placements and selections beside TransFG's: what they cost, and where their parts come from."""

import numpy as np
import pytest
import reference

from parity.cases.case import BY_NAME, Case
from transfg_core.backend import load_backend
from transfg_core.config.loading import build_config
from transfg_core.parts import draw_parts
from transfg_core.train import split_batch

RANDOM = BY_NAME["random"]
CASES = [BY_NAME[name] for name in ("extra", "flatten", "maws", "similarity", "random")]
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def test_random_parts_are_new_in_each_update(twin):
    """Those of the core, by update and image; accumulation changes nothing of it."""
    batch, config = RANDOM.batches()[0], RANDOM.config()
    expected = [draw_parts(config, batch.images, update) for update in (0, 1, 2)]
    own, given = twin.backend(RANDOM), twin.backend(RANDOM)
    assert np.array_equal(own.fetch(own.eval_step(batch.images))["part_index"], expected[0])
    for update in (1, 2):
        first = own.fetch(own.train_step(split_batch(batch, 2), 0.01))
        second = given.fetch(given.train_step(split_batch(batch, 2), 0.01, expected[update]))
        assert first["loss"] == second["loss"]
    third = twin.backend(RANDOM)
    report = third.fetch(third.train_step(split_batch(batch, 2), 0.01, expected[2]))
    other = twin.backend(RANDOM)
    assert report["loss"] != other.fetch(other.train_step(split_batch(batch, 2), 0.01))["loss"]


def test_parts_of_stored_and_of_normalised_images_are_equal(twin):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 44, 32, 3)).astype(np.uint8)
    backend, config = twin.backend(RANDOM), RANDOM.config()
    found = backend.fetch(backend.eval_step(pixels))["part_index"]
    assert found.dtype == np.int64 and np.array_equal(found, draw_parts(config, pixels))
    alone = backend.fetch(backend.eval_step(pixels[1:]))["part_index"]
    assert np.array_equal(alone, found[1:])


def test_saliency_uses_the_parts_of_the_evaluation(twin):
    """Every pixel has one, since random tokens of the encoder have seen all patches."""
    backend, batch = twin.backend(RANDOM), RANDOM.batches()[0]
    saliency = backend.fetch(backend.saliency(batch.images))["saliency"]
    assert saliency.shape == (6, 44, 32) and np.isfinite(saliency).all()
    assert (saliency[:, :40] > 0).mean() > 0.99  # the last rows lie outside of all patches


@each_case
def test_recomputed_blocks_give_the_same_update(twin, case):
    """Gradient checkpointing; the gradients of tokens from several blocks included."""
    batches = [split_batch(batch, 2) for batch in case.batches()[:2]]
    states = []
    for checkpointing in (False, True):
        tree = case.config().model_dump(mode="json")
        tree["run"]["grad_checkpointing"] = checkpointing
        backend = load_backend(twin.name, build_config(tree, case.name))
        backend.load_params(case.params())
        for micro in batches:
            backend.fetch(backend.train_step(micro, 0.01))
        states.append(backend.state())
    for name, value in states[0].items():
        if not name.endswith("attn.key.bias"):  # its gradient is noise
            assert reference.relative(states[1][name], value) < 1e-5, name


@each_case
def test_mixed_precision(twin, case):
    """A per cent off, never equal; scores are computed in float32 from rounded numbers."""
    backend = load_backend(twin.name, case.config("bfloat16"))
    backend.load_params(case.params())
    batch = case.batches()[0]
    index = twin.backend(case).trace(batch)["part_index"]
    mixed = backend.trace(batch, {"part_index": index})
    whole = twin.backend(case).trace(batch, {"part_index": index})
    for name in ("logits", "grad/head.weight"):
        assert 1e-5 < reference.relative(mixed[name], whole[name]) < 5e-2, name
    if "part_scores" in mixed:
        assert reference.relative(mixed["part_scores"], whole["part_scores"]) < 5e-2
        assert (mixed["part_scores"].astype("f4").view(np.uint32) & 0xFFFF).any()
    report = backend.fetch(backend.train_step([batch], 0.01))
    assert np.isfinite(report["loss"]) and report["grad_norm"] > 0


def test_unchosen_tokens_of_maws_get_no_gradient_from_the_part_layer(twin):
    """Of the block before it, the part layer reads the class token and the chosen tokens alone."""
    case = Case("maws", model={"selection": "maws", "top_k": 2, "depth": 3}, seed=3)
    backend, batch = twin.backend(case), case.batches()[0]
    trace = backend.trace(batch)
    for depth in range(2):
        chosen = trace["part_index"][:, 2 * depth : 2 * depth + 2]
        gradient = trace["d/part_tokens"][:, 1 + 2 * depth : 3 + 2 * depth]
        assert gradient.any()
        block = trace[f"block{depth:02d}"]
        tokens = np.take_along_axis(block, chosen[..., None], axis=1)
        assert np.array_equal(trace["part_tokens"][:, 1 + 2 * depth : 3 + 2 * depth], tokens)
    last = trace["d/block01"]
    for image, parts in enumerate(trace["part_index"][:, 2:]):
        used = {0, *parts.tolist()}
        assert all(last[image, j].any() == (j in used) for j in range(last.shape[1]))
