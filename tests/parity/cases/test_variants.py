"""Variants of a case compute the same function, tested with the NumPy reference of the network."""

import numpy as np
import pytest
import reference

from parity.cases.case import CASES, Case
from parity.cases.variants import Variant, tap_axes
from parity.comparison.measure import move_by_ulp
from transfg_core.models.layout import param_shapes
from transfg_core.parts import draw_parts

CASE = Case("parts", model={"stride": 6})
PLAIN = Case("plain", model={"placement": "none"}, accumulation=2, mixed=True, seed=3)
FLAT = {"placement": "flatten", "flatten_class_token": False}
OTHERS = [
    Case("flatten", model={"placement": "flatten"}, seed=4),
    Case("parts alone", model=FLAT | {"flatten_part_layer": True, "fusion": "mul"}, seed=5),
    Case("maws", model={"selection": "maws", "top_k": 2}, accumulation=3, seed=6),
    Case("similarity", model=FLAT | {"selection": "cls_similarity"}, seed=7),
    Case("random", model={"selection": "random", "placement": "extra"}, seed=8),
]
both = pytest.mark.parametrize("case", [CASE, PLAIN, *OTHERS], ids=lambda case: case.name)
symmetries = pytest.mark.parametrize("name", ["symmetry:1", "symmetry:2"])


def taps_of(case, params, batch):
    """Every tap of the reference, and the losses, in float64."""
    config = case.config()
    drawn = draw_parts(config, batch.images)
    found = reference.forward(params, batch.images, config.model, drawn)
    taps = found.taps | {"prediction": found.logits.argmax(-1)}
    targets = batch.labels if batch.targets is None else batch.targets
    taps["cross_entropy"] = np.array(reference.cross_entropy(found.logits, targets, 0.1))
    taps["contrastive"] = np.array(
        reference.contrastive(found.features, targets, config.loss.margin)
    )
    return taps


@both
@symmetries
def test_a_symmetry_leaves_every_tap_as_it_was(case, name):
    variant, params, batch = Variant(name, case.config()), case.params(), case.batches()[0]
    expected = taps_of(case, params, batch)
    moved = taps_of(case, variant.params(params), variant.batch(batch))
    found = variant.back(moved)
    assert list(found) == list(expected)
    expected.pop("prediction"), found.pop("prediction")  # class numbers, which are permuted
    for tap, value in expected.items():
        if value.dtype.kind == "i":
            assert np.array_equal(found[tap], value), tap
        else:
            assert reference.relative(found[tap], value) < 1e-12, tap
    # the symmetry did move something, else the test shows nothing
    norm = "part_norm" if case.config().model.has_part_layer else "norm"
    for tap in ("embed", "logits", "features", norm):
        assert not np.allclose(moved[tap], expected[tap]), tap


@both
def test_given_is_the_inverse_of_back(case):
    variant, params, batch = Variant("symmetry:1", case.config()), case.params(), case.batches()[0]
    taps = taps_of(case, params, batch)
    there = variant.given(taps)
    moved = taps_of(case, variant.params(params), variant.batch(batch))
    assert all(np.allclose(there[tap], moved[tap]) for tap in taps if tap != "prediction")
    back = variant.back(there)
    assert all(np.array_equal(back[tap], taps[tap]) for tap in taps)


def test_a_symmetry_moves_every_axis_that_it_can():
    variant, params, batch = Variant("symmetry:1", CASE.config()), CASE.params(), CASE.batches()[0]
    for name, value in variant.params(params).items():
        assert value.shape == params[name].shape and value.dtype == np.float32
        assert not np.array_equal(value, params[name]), name
        assert np.array_equal(np.sort(value.ravel()), np.sort(params[name].ravel())), name
    orders = variant.orders()
    for letter, order in orders.items():
        start = np.arange(len(order))
        assert np.array_equal(np.sort(order), start), letter
        assert not np.array_equal(order, start), letter
    assert orders["Q"][0] == 0  # the class token stays in front
    moved = variant.batch(batch)
    assert moved.labels.dtype == np.int64 and moved.images.flags["C_CONTIGUOUS"]
    assert not np.array_equal(moved.images, batch.images)
    # labels go with their images, and classes with the head
    head = variant.params(params)["head.bias"]
    assert np.array_equal(head[moved.labels], params["head.bias"][batch.labels][orders["B"]])


def test_images_stay_in_their_micro_batch():
    """The contrastive loss is over the pairs of a micro-batch."""
    for seed in range(20):
        order = Variant(f"symmetry:{seed}", PLAIN.config()).orders()["B"]
        assert set(order[:3]) == {0, 1, 2} and set(order[3:]) == {3, 4, 5}


def test_heads_move_whole():
    order = Variant("symmetry:1", CASE.config()).orders()
    width = len(order["E"]) // len(order["K"])
    blocks = order["E"].reshape(-1, width)
    assert np.array_equal(blocks[:, 0] // width, order["K"])
    assert (blocks // width == order["K"][:, None]).all()
    assert (blocks % width == blocks[0] % width).all()


@pytest.mark.parametrize("kind", ["f4", "f8"])
def test_ulp_moves_every_weight_by_exactly_one(kind):
    params = {name: value.astype(kind) for name, value in CASE.params().items()}
    params["head.bias"][:3] = 0, -1e30, 1
    found = Variant("ulp:1", CASE.config()).params(params)
    assert list(found) == list(params)
    ups = []
    for name, value in params.items():
        assert found[name].dtype == kind and found[name].shape == value.shape
        up = np.nextafter(value, value.dtype.type(np.inf))
        down = np.nextafter(value, value.dtype.type(-np.inf))
        assert ((found[name] == up) | (found[name] == down)).all(), name
        assert (found[name] != value).all(), name
        ups.append((found[name] == up).ravel())
    assert 0.48 < np.concatenate(ups).mean() < 0.52  # by chance up or down


def test_ulp_changes_nothing_else():
    variant, batch = Variant("ulp:1", CASE.config()), CASE.batches()[0]
    assert variant.batch(batch) is batch
    taps = {"logits": np.zeros((6, 7))}
    assert variant.given(taps) is taps and variant.back(taps) is taps


@pytest.mark.parametrize("kind", ["ulp", "symmetry"])
def test_a_variant_is_a_function_of_its_name(kind):
    params = CASE.params()
    one, again, other = (
        Variant(name, CASE.config()).params(params)
        for name in (f"{kind}:1", f"{kind}:1", f"{kind}:2")
    )
    for name in ("head.weight", "pos_embed"):
        assert np.array_equal(one[name], again[name])
        assert not np.array_equal(one[name], other[name])
    assert np.array_equal(params["pos_embed"], CASE.params()["pos_embed"])  # not in place


@pytest.mark.parametrize(("precision", "bits"), [("tf32", 11), ("bfloat16", 8)])
def test_a_unit_of_fewer_digits_is_not_rounded_away(precision, bits):
    """Products with so few binary digits would round one unit of float32 away."""
    rng = np.random.default_rng(0)
    value = np.append(rng.standard_normal(1000), [0, 1, -0.5]).astype(np.float32)
    moved = move_by_ulp(value, rng, precision)
    _, exponent = np.frexp(value)
    units = (moved - value) / np.ldexp(1.0, exponent - bits)
    assert moved.dtype == np.float32 and np.allclose(np.abs(units[value != 0]), 1, atol=1e-4)
    assert 0.4 < (units > 0).mean() < 0.6
    assert 0 < np.abs(moved[value == 0]).max() < 1e-30
    same = move_by_ulp(value, np.random.default_rng(1), "float32")
    assert np.array_equal(same, move_by_ulp(value, np.random.default_rng(1)))


def test_move_by_ulp_goes_both_ways_from_zero():
    moved = move_by_ulp(np.zeros(100, np.float32), np.random.default_rng(0))
    assert set(np.sign(moved)) == {-1, 1}


@pytest.mark.parametrize("name", ["ulp", "ulp:", "ulp:-1", "ulp:x", "shift:1", "", "symmetry"])
def test_an_unknown_variant_is_refused(name):
    with pytest.raises(ValueError, match=f"--variant {name}: expected ulp:SEED or symmetry:SEED"):
        Variant(name, CASE.config())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_parameter_has_axes(case):
    config = case.config()
    orders = Variant("symmetry:1", config).orders()
    for name, shape in param_shapes(config.model, config.data.crop).items():
        letters = tap_axes(name, config.model).split()
        assert len(letters) == len(shape), name
        for letter, size in zip(letters, shape, strict=True):
            assert letter not in orders or len(orders[letter]) == size, (name, letter)


def test_names_around_a_tap_change_nothing():
    model = CASE.config().model
    for tap in ("block01.attn.query", "part_tokens", "patch_embed", "part_row02", "logits"):
        axes = tap_axes(tap, model)
        assert axes and axes == tap_axes(f"d/{tap}", model) == tap_axes(f"x/d/{tap}", model)
    for name in ("head.weight", "blocks.0.attn.out.weight", "part_layer.mlp.fc1.weight"):
        axes = tap_axes(name, model)
        assert axes and axes == tap_axes(f"grad/{name}", model) == tap_axes(
            f"momentum/{name}", model
        )
    for name in ("part_tokens", "part_layer", "part_norm"):
        assert tap_axes(name, model) == "B Q D"
    assert tap_axes("part_layer.attn.mix", model) == "B Q E"
    assert tap_axes("part_layer.mlp.gelu", model) == "B Q M"
    assert tap_axes("loss", model) == tap_axes("grad_norm", model) == ""
