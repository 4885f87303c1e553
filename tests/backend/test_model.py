"""The models against `reference.py`: float64 NumPy with full attention maps and products.

Relative L2 of a whole tap. Float32 roundings reach at most 1e-6 at this size; a wrong epsilon, GELU
or scale moves some tap by 1e-5 or more. Images are not square, and weights have no symmetry.
"""

import numpy as np
import pytest
import reference

from parity.cases.case import SGD, Case
from transfg_core.config.vit import VitConfig
from transfg_core.parts import draw_parts

BOUND = 5e-6

VARIANTS = [
    Case("matmul"),
    Case("overlap", model={"stride": 6}, seed=1),
    Case("mul", model={"stride": 6, "fusion": "mul"}, seed=2),
    Case("add", model={"fusion": "add"}, seed=3),
    Case("lastlayer", model={"fusion": "lastlayer"}, seed=4),
    Case("none", model={"placement": "none"}, crop=(32, 44), seed=5),
    Case("extra", model={"placement": "extra"}, seed=6),
    Case("maws", model={"selection": "maws", "top_k": 2}, seed=7),
    Case(
        "similarity",
        model={"placement": "flatten", "selection": "cls_similarity", "top_k": 4},
        seed=8,
    ),
    Case(
        "center",
        model={
            "placement": "flatten",
            "selection": "center",
            "flatten_class_token": False,
            "flatten_part_layer": True,
        },
        seed=9,
    ),
    Case("random", model={"selection": "random", "top_k": 5}, seed=10),
]


@pytest.mark.parametrize("case", VARIANTS, ids=lambda case: case.name)
def test_every_tap_agrees_with_the_reference(twin, case):
    config, batch, params = case.config(), case.batches()[0], case.params()
    trace = twin.backend(case).trace(batch)
    index = draw_parts(config, batch.images)
    expected = reference.forward(params, batch.images, config.model, index)
    others = ("loss", "cross_entropy", "contrastive", "grad_norm", "clipped_norm", "tokens")
    found = {n for n in trace if not n.startswith(("grad/", "d/", "part_row"))}
    assert found == {*expected.taps, *others}
    for name, value in expected.taps.items():
        if name == "part_index":
            assert np.array_equal(trace[name], value)
        else:
            assert reference.relative(trace[name], value) < BOUND, name
    ce = reference.cross_entropy(expected.logits, batch.labels, 0.0)
    con = reference.contrastive(expected.features, batch.labels, config.loss.margin)
    assert trace["cross_entropy"] == pytest.approx(ce, rel=1e-6)
    assert trace["contrastive"] == pytest.approx(con, rel=2e-6)
    assert trace["loss"] == pytest.approx(ce + con, rel=1e-6)


def test_gradients_are_the_derivatives_of_the_loss(twin):
    """Along a random direction in each parameter, by central differences in float64.

    With plain placement, because part selection is not continuous. Differences with step 1e-4 are
    exact to 1e-7, float32 gradients to 1e-6.
    """
    case = Case("slope", model={"placement": "none"}, optim=SGD)
    config, batch, params = case.config(), case.batches()[0], case.params()
    trace = twin.backend(case).trace(batch)

    def loss(shift: float, name: str, direction: np.ndarray) -> float:
        moved = params | {name: params[name].astype(np.float64) + shift * direction}
        result = reference.forward(moved, batch.images, config.model)
        return reference.cross_entropy(result.logits, batch.labels, 0.0) + reference.contrastive(
            result.features, batch.labels, config.loss.margin
        )

    rng = np.random.default_rng(8)
    for name in (
        "patch_embed.weight",
        "pos_embed",
        "cls_token",
        "blocks.0.attn.query.weight",
        "blocks.1.attn.key.weight",
        "blocks.2.mlp.fc1.bias",
        "blocks.0.norm1.weight",
        "norm.bias",
        "head.weight",
    ):
        direction = rng.standard_normal(params[name].shape)
        slope = (loss(1e-4, name, direction) - loss(-1e-4, name, direction)) / 2e-4
        found = float((trace[f"grad/{name}"].astype(np.float64) * direction).sum())
        size = float(np.linalg.norm(trace[f"grad/{name}"])) * float(np.linalg.norm(direction))
        assert abs(found - slope) < 1e-6 * size + 1e-7, name


@pytest.mark.parametrize(("mean", "std", "bound"), [(0, 1, 5e-6), (100, 1, 5e-4), (0, 1e-3, 5e-6)])
def test_layer_norm(twin, mean, std, bound):
    """A large mean costs digits of the input (1e-5 of a deviation), but not of the variance.

    At deviation 1e-3 eps is as large as the variance, so a wrong eps would show.
    """
    rng = np.random.default_rng(9)
    x = (mean + std * rng.standard_normal((2, 5, 768))).astype(np.float32)
    norm = twin.module("models.layers").LayerNorm(768)
    (y,) = twin.run(norm, x)
    expected = reference.layer_norm(x.astype(np.float64), 1.0, 0.0)
    assert np.abs(y - expected).max() < bound


@pytest.mark.only("jittor")
@pytest.mark.parametrize("shape", [(3, 7, 70), (1, 1, 5)], ids=str)
def test_layer_norm_gradients(twin, shape):
    """Gradients of the C++ operators, against differences of float64 NumPy."""
    rng = np.random.default_rng(10)
    inputs = [rng.standard_normal(s).astype(np.float32) for s in (shape, shape[2:], shape[2:])]
    weights = rng.standard_normal(shape)
    norm, factor = twin.module("ops.layer_norm").layer_norm, twin.tensor(weights.astype(np.float32))
    found = twin.gradients(lambda *x: (norm(*x, 1e-6) * factor).sum(), inputs)
    wide = [x.astype(np.float64) for x in inputs]
    for place, gradient in enumerate(found):
        direction = rng.standard_normal(gradient.shape)

        def total(step, place=place, direction=direction):
            moved = [x + step * direction * (i == place) for i, x in enumerate(wide)]
            return float((reference.layer_norm(*moved) * weights).sum())

        slope = (total(1e-5) - total(-1e-5)) / 2e-5
        size = np.linalg.norm(gradient) * np.linalg.norm(direction)
        assert abs((gradient * direction).sum() - slope) < 1e-6 * size, place


def test_first_of_equal_maxima_is_selected(twin):
    scores = np.array([[[1, 3, 3, 2], [4, 0, 0, 4], [0, 0, 0, 0], [0, 0, 0, 9]]], np.float32)
    select = twin.module("models.parts").select_parts
    (index,) = twin.run(select, scores)
    assert index.tolist() == [[2, 1, 1, 4]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_largest_scores_are_selected_in_order(twin, dtype):
    """The first of equals; as many of each row, row after row; scores may be negative."""
    rows = [[0.3, 0.9, 0.9, 0.1, 0.3], [-1, -1, -1, -1, -1], [0, 0, 1e-30, 0, 1e-20]]
    select = twin.module("models.parts").select_parts
    (index,) = twin.run(lambda x: select(x, 4), np.array([rows, rows[::-1]], dtype))
    first, second, third = [2, 3, 1, 5], [1, 2, 3, 4], [5, 3, 1, 2]
    assert index.tolist() == [[*first, *second, *third], [*third, *second, *first]]
    assert index.shape == (2, 12)


def test_chosen_tokens_follow_the_class_token(twin):
    x = np.arange(2 * 5 * 3, dtype=np.float32).reshape(2, 5, 3)
    index = np.array([[4, 1, 4], [2, 2, 3]])
    gather = twin.module("models.parts").gather_tokens
    (tokens,) = twin.run(lambda x, index: gather([x], index), x, index)
    assert np.array_equal(tokens, np.stack([x[0, [0, 4, 1, 4]], x[1, [0, 2, 2, 3]]]))
    index = np.array([[4, 1, 4, 2], [2, 2, 3, 1]])
    (tokens,) = twin.run(lambda a, b, index: gather([a, b], index), x, x + 100, index)
    for image, tokens_of_image in enumerate(tokens):
        a, b = x[image], x[image] + 100
        first, second = np.split(index[image], 2)
        expected = np.concatenate([b[:1], a[first], b[second]])
        assert np.array_equal(tokens_of_image, expected)


def test_similarity_of_tokens_without_length(twin):
    """A token of zeros has no direction: its cosine is 0, not nan."""
    x = np.zeros((1, 4, 3), np.float32)
    x[0, 0], x[0, 1], x[0, 2] = (3, 0, 4), (6, 0, 8), (-3e-3, 0, -4e-3)
    (cosine,) = twin.run(twin.module("models.parts").class_similarity, x)
    assert cosine.shape == (1, 1, 3)
    assert np.abs(cosine - [[[1, -1, 0]]]).max() < 1e-6


def test_selection_has_no_gradient(twin):
    """A block that adds nothing still gives part scores, but its queries get no gradient."""
    case = Case("selection", model={"depth": 2})
    silent = {
        name: value * ("blocks.0.attn.out" not in name) for name, value in case.params().items()
    }
    backend = twin.backend(case)
    for params, learns in ((case.params(), True), (silent, False)):
        backend.load_params(params)
        trace = backend.trace(case.batches()[0])
        for layer in ("query", "key"):
            assert trace[f"grad/blocks.0.attn.{layer}.weight"].any() == learns


def test_sizes_follow_the_image(twin):
    model = twin.module("models.vit").TransFG(VitConfig(**Case("x").model, classes=3), (24, 40))
    (logits,) = twin.run(lambda x: model(x).logits, np.zeros((1, 3, 24, 40), np.float32))
    assert logits.shape == (1, 3)


@pytest.mark.only("torch")
def test_dropout_saves_one_byte_per_element(twin):
    torch, saved = twin.framework, []
    dropout = twin.module("models.layers").Dropout(0.1)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x) or x, lambda x: x):
        dropout(torch.ones(4096, requires_grad=True))
    assert [x.dtype for x in saved] == [torch.bool]


@pytest.mark.only("jittor")
def test_dropout_draws_a_mask_of_one_byte_per_element(twin):
    dropout = twin.module("models.layers").Dropout(0.25)
    dropout.train()
    masks = twin.module("ops.dropout_masks")
    with twin.module("ops.custom_grad").override(masks.DRAWN, []):
        (found,) = twin.run(dropout, np.ones(4096, np.float32))
        (mask,) = masks.DRAWN.get()
    assert mask.dtype == "bool" and np.array_equal(found > 0, mask.numpy())
    assert set(np.unique(found)) == {0, np.float32(1 / 0.75)}


def test_dropout_does_nothing_at_rate_zero_or_in_evaluation(twin):
    dropout_class = type(twin.backend(Case("parts")).model.dropout)
    ones = np.ones(4096, np.float32)
    for dropout in (dropout_class(0.0), dropout_class(0.5)):
        dropout.eval()
        assert np.array_equal(twin.run(dropout, ones)[0], ones)
    dropout = dropout_class(0.0)
    dropout.train()
    assert np.array_equal(twin.run(dropout, ones)[0], ones)
