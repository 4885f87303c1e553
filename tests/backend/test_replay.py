"""`Backend.trace`: its taps, their gradients, and the pass with replayed taps.

Bound on the relative L2 of a whole tap: 5e-6, as in `test_model.py`, where float64 NumPy computes
it or where the order of sums differs.
"""

import numpy as np
import pytest
import reference
from reference import relative

from parity.cases.case import Case
from parity.cases.variants import Variant, tap_axes
from transfg_core.backend import Batch
from transfg_core.models.layout import choice_taps

BOUND = 5e-6
PARTS = Case("parts", model={"depth": 3, "stride": 6}, loss={"label_smoothing": 0.1})
PLAIN = Case(
    "plain", model={"depth": 2, "placement": "none"}, loss={"contrastive": False}, accumulation=2
)
DROPOUT = Case("dropout", model={"depth": 2, "dropout": 0.3})
BOTH = pytest.mark.parametrize("case", [PARTS, PLAIN], ids=lambda case: case.name)

INSIDE = ("norm1", "attn.query", "attn.key", "attn.value", "attn.mix", "attn.out", "mid", "norm2",
          "mlp.fc1", "mlp.gelu", "mlp.hidden", "mlp.fc2", "mlp.out")  # fmt: skip
NORMS = ("grad_norm", "clipped_norm")
LOSSES = ("loss", "cross_entropy", "contrastive")


def wide(params):
    return {name: value.astype(np.float64) for name, value in params.items()}


def activations(trace):
    """Names of the taps of the forward pass."""
    return [n for n in trace if not n.startswith(("d/", "grad/")) and n not in (*NORMS, *LOSSES)]


def is_noise(name):
    """Gradients of key biases are zero except for rounding."""
    return name.endswith("key.bias")


@BOTH
def test_taps_inside_blocks(twin, case):
    backend, batch = twin.backend(case), case.batches()[0]
    fine, coarse = backend.trace(batch, fine=True), backend.trace(batch)
    parts = case is PARTS
    blocks = ["block00", "block01"]
    within = [f"{block}.{name}" for block in blocks for name in INSIDE]
    within += [f"part_layer.{name}" for name in INSIDE] * parts
    top = ["patch_embed", "tokens", "embed", *blocks, "features", "logits"]
    last = ["part_row01", "part_scores", "part_index", "part_tokens", "part_layer", "part_norm"]
    top += last if parts else ["norm"]
    assert set(activations(coarse)) == {*top}
    assert set(activations(fine)) == {*top, *within}
    assert all(np.array_equal(fine[name], value) for name, value in coarse.items())
    order = [name for name in activations(fine) if name.startswith("block01")]
    assert order == [*within[len(INSIDE) : 2 * len(INSIDE)], "block01"]  # in data order


@BOTH
def test_every_tap_has_a_gradient_of_its_shape(twin, case):
    trace = twin.backend(case).trace(case.batches()[0], fine=True)
    for name in activations(trace):
        if name not in choice_taps(case.config().model):
            assert trace[f"d/{name}"].shape == trace[name].shape, name
            assert trace[f"d/{name}"].dtype == np.float32 and trace[f"d/{name}"].any(), name
        else:
            assert f"d/{name}" not in trace, name


def test_gradients_of_taps_are_right(twin):
    """By hand for softmax and cross-entropy; sums over the batch give parameters' gradients."""
    batch, params = PLAIN.batches()[0], wide(PLAIN.params())
    trace = twin.backend(PLAIN).trace(batch, fine=True)
    right = np.eye(7)[batch.labels]
    slope = (reference.softmax(trace["logits"].astype(np.float64)) - right) / len(right)
    assert relative(trace["d/logits"], slope) < BOUND
    assert relative(trace["d/features"], slope @ params["head.weight"]) < BOUND
    for tap, name in (
        ("logits", "head.bias"),
        ("block01.attn.value", "blocks.1.attn.value.bias"),
        ("block00.mlp.fc1", "blocks.0.mlp.fc1.bias"),
        ("block00.mlp.fc2", "blocks.0.mlp.fc2.bias"),
        ("block01.attn.out", "blocks.1.attn.out.bias"),
        ("patch_embed", "patch_embed.bias"),
    ):
        slope = trace[f"d/{tap}"].astype(np.float64)
        assert relative(slope.sum(tuple(range(slope.ndim - 1))), trace[f"grad/{name}"]) < BOUND
    tokens = trace["d/embed"].astype(np.float64).sum(0, keepdims=True)
    assert relative(tokens, trace["grad/pos_embed"]) < BOUND
    assert relative(tokens[:, :1], trace["grad/cls_token"]) < BOUND


@pytest.mark.parametrize("clip", [0.01, 1e6, None])
def test_norms_before_and_after_clipping(twin, clip):
    case = Case("clipped", PLAIN.model, PLAIN.loss, PLAIN.optim | {"clip": clip})
    trace = twin.backend(case).trace(case.batches()[0])
    grads = [v.astype(np.float64) for name, v in trace.items() if name.startswith("grad/")]
    norm = np.sqrt(sum((grad**2).sum() for grad in grads))  # `grad/` is not clipped
    assert trace["grad_norm"] == pytest.approx(norm, rel=1e-6)
    expected = min(norm, clip or np.inf)
    assert trace["clipped_norm"] == pytest.approx(expected, rel=1e-3 if clip == 0.01 else 1e-6)


# Isolated operations


@BOTH
def test_isolated_operations_repeat_the_whole_pass(twin, case):
    """With its own taps and cotangents as inputs, every operation repeats the whole pass."""
    backend, batch = twin.backend(case), case.batches()[0]
    whole = backend.trace(batch, fine=True)
    names = activations(whole)
    replay = {n: v for n, v in whole.items() if n in names or n.startswith("d/")}
    isolated = backend.trace(batch, replay, fine=True)
    assert list(isolated) == list(whole)
    for name, value in whole.items():
        if value.dtype.kind == "i":
            assert np.array_equal(isolated[name], value), name
        elif not is_noise(name) and np.any(value):
            assert relative(isolated[name], value) < BOUND, name


def test_a_replayed_tap_is_used_and_the_computed_one_recorded(twin):
    backend, batch = twin.backend(PARTS), PARTS.batches()[0]
    plain = backend.trace(batch)
    given = plain["block00"][::-1] * 2 + np.float32(0.1)
    replayed = backend.trace(batch, {"block00": given})
    assert np.array_equal(replayed["block00"], plain["block00"])
    expected, _ = reference.block(wide(PARTS.params()), "blocks.1", given.astype("f8"), 3)
    assert relative(replayed["block01"], expected) < BOUND
    assert not np.allclose(replayed["block01"], plain["block01"])
    # the loss does not depend on operations before the replayed tap
    for name in ("grad/patch_embed.weight", "grad/blocks.0.norm1.bias"):
        assert not replayed[name].any()
    assert replayed["grad/blocks.1.attn.out.weight"].any() and replayed["d/block00"].any()


def test_a_replayed_cotangent_reaches_the_operation_before(twin):
    """The gradient of a bias that is added last is the sum of the cotangent."""
    backend, batch = twin.backend(PARTS), PARTS.batches()[0]
    plain = backend.trace(batch)
    rng = np.random.default_rng(1)
    slope = rng.standard_normal(plain["block00"].shape).astype(np.float32)
    replay = {"block00": plain["block00"], "d/block00": slope}
    replayed = backend.trace(batch, replay)
    expected = slope.astype(np.float64).sum((0, 1))
    assert relative(replayed["grad/blocks.0.mlp.fc2.bias"], expected) < BOUND
    # it does not change operations after the tap
    for name in ("d/block00", "grad/blocks.1.attn.value.bias", "grad/head.weight"):
        assert relative(replayed[name], plain[name]) < BOUND, name
    # a cotangent without its tap has no effect
    alone = backend.trace(batch, {"d/block00": slope})
    assert all(np.array_equal(alone[name], value) for name, value in plain.items())


def test_replayed_parts_are_attended_to(twin):
    backend, batch = twin.backend(PARTS), PARTS.batches()[0]
    plain = backend.trace(batch)
    forced = plain["part_index"] % plain["part_scores"].shape[-1] + 1  # the next patch of each
    replayed = backend.trace(batch, {"part_index": forced})
    assert np.array_equal(replayed["part_index"], plain["part_index"])
    x = plain["block01"]
    expected = np.stack([np.concatenate([x[b, :1], x[b, forced[b]]]) for b in range(len(x))])
    assert np.array_equal(replayed["part_tokens"], expected)
    assert not np.allclose(replayed["logits"], plain["logits"])


def test_replayed_scores_select_the_parts(twin):
    backend, batch = twin.backend(PARTS), PARTS.batches()[0]
    scores = -backend.trace(batch)["part_scores"]
    replayed = backend.trace(batch, {"part_scores": scores})
    assert np.array_equal(replayed["part_index"], scores.argmax(-1) + 1)


def test_a_replayed_pass_changes_nothing(twin):
    backend, batch = twin.backend(PARTS), PARTS.batches()[0]
    before, state = backend.trace(batch), backend.state()
    backend.trace(batch, {"embed": before["embed"] + 1, "d/embed": before["d/embed"]}, fine=True)
    after = backend.trace(batch)
    assert all(np.array_equal(after[name], value) for name, value in before.items())
    assert all(np.array_equal(backend.state()[name], value) for name, value in state.items())


# Training mode


def test_dropout_is_on_only_with_training(twin):
    backend, batch = twin.backend(DROPOUT), DROPOUT.batches()[0]
    plain = backend.trace(batch, fine=True)
    trained = backend.trace(batch, fine=True, training=True)
    for out, source in (
        ("embed", "tokens"),
        ("block00.mlp.hidden", "block00.mlp.gelu"),
        ("block00.mlp.out", "block00.mlp.fc2"),
    ):
        assert np.array_equal(plain[out], plain[source])
        alive = trained[out] != 0
        assert 0.6 < alive.mean() < 0.8
        assert np.allclose(trained[out][alive], trained[source][alive] / 0.7, rtol=1e-5)
        # a dropped element has gradient zero; the others are multiplied by 1 / 0.7
        gradients = trained[f"d/{source}"], trained[f"d/{out}"]
        assert not gradients[0][~alive].any()
        assert np.allclose(gradients[0][alive], gradients[1][alive] / 0.7, rtol=1e-4, atol=1e-9)
    assert trained["loss"] != plain["loss"]
    off = backend.trace(batch, fine=True)
    assert all(np.array_equal(off[name], value) for name, value in plain.items())


def test_training_mode_alone_changes_nothing(twin):
    backend, batch = twin.backend(PARTS), PARTS.batches()[0]
    plain, trained = backend.trace(batch), backend.trace(batch, training=True)
    assert all(np.array_equal(trained[name], value) for name, value in plain.items())


# Rollout


@BOTH
def test_rollout_is_the_product_of_all_maps(twin, case):
    """Row 0 of the product of (mean over heads + 1) / 2 (Abnar and Zuidema, equation 1)."""
    images, params = case.batches()[0].images, wide(case.params())
    backend = twin.backend(case)
    x = reference.forward(params, images, case.config().model).taps["embed"]
    product = np.eye(x.shape[1])
    for depth in range(2):
        x, scores = reference.block(params, f"blocks.{depth}", x, 3)
        mixed = (reference.softmax(scores).mean(1) + np.eye(x.shape[1])) / 2
        assert np.allclose(mixed.sum(-1), 1)
        product = mixed @ product
    found = backend.fetch(backend.rollout(images))
    assert list(found) == ["rollout"] and found["rollout"].dtype == np.float32
    assert relative(found["rollout"], product[:, 0, 1:]) < BOUND
    own = 1 - found["rollout"].sum(-1)  # the class token's own weight
    assert relative(own, product[:, 0, 0]) < 1e-5
    trace = backend.trace(case.batches()[0])  # gradients still work afterwards
    assert trace["grad/patch_embed.weight"].any()


# Symmetries


@BOTH
def test_a_symmetry_changes_only_the_order_of_every_tap(twin, case):
    """This also tests the axes of every tap. The order of float32 sums changes: bound 1e-5."""
    variant, params = Variant("symmetry:1", case.config()), case.params()
    batch = case.batches()[0]
    if case.accumulation > 1:  # images stay in their micro-batch
        batch = Batch(batch.images[:3], batch.labels[:3])
        full = variant.batch(case.batches()[0])
        moved_batch = Batch(full.images[:3], full.labels[:3])
        order = variant.orders()["B"][:3]
    else:
        moved_batch, order = variant.batch(batch), variant.orders()["B"]
    backend = twin.backend(case)
    base = backend.trace(batch, fine=True)
    backend.load_params(variant.params(params))
    moved = backend.trace(moved_batch, fine=True)
    orders = variant.orders() | {"B": order}
    for name, value in base.items():
        letters = tap_axes(name, case.config().model).split()
        assert len(letters) == value.ndim, name
        found = moved[name]
        for axis, letter in enumerate(letters):
            if letter in orders:
                assert len(orders[letter]) == value.shape[axis], name
                found = np.take(found, np.argsort(orders[letter]), axis=axis)
        if value.dtype.kind == "i":
            assert np.array_equal(found, value), name
        elif not is_noise(name) and np.any(value):
            assert relative(found, value) < 1e-5, name
