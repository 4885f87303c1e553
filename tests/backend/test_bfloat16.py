"""`run.precision=bfloat16`: which numbers are rounded, and how."""

import numpy as np
import pytest
from reference import relative
from scipy.special import erf

from parity.cases.case import Case
from transfg_core.backend import Array, load_backend

CASE = Case("mixed", model={"depth": 2, "placement": "none"}, loss={"contrastive": False})


def rounded(x: Array) -> Array:
    """float32 with the digits of bfloat16, rounded to the nearest, ties to even."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    up = bits + 0x7FFF + ((bits >> 16) & 1)
    return np.where(np.isnan(x), bits, up & 0xFFFF0000).astype(np.uint32).view(np.float32)


@pytest.fixture(scope="module")
def backend(twin):
    backend = load_backend(twin.name, CASE.config("bfloat16"))
    backend.load_params(CASE.params())
    return backend


@pytest.fixture(scope="module")
def trace(backend):
    return backend.trace(CASE.batches()[0], fine=True)


LAYERS = {  # tap -> the tap of its input, and the layer
    "block00.attn.query": ("block00.norm1", "blocks.0.attn.query"),
    "block00.attn.out": ("block00.attn.mix", "blocks.0.attn.out"),
    "block01.mlp.fc1": ("block01.norm2", "blocks.1.mlp.fc1"),
    "block01.mlp.fc2": ("block01.mlp.hidden", "blocks.1.mlp.fc2"),
}


@pytest.mark.parametrize("tap", LAYERS)
def test_linear_layers_round_factors_and_result(twin, trace, tap):
    params, (source, layer) = CASE.params(), LAYERS[tap]
    x, weight, bias = trace[source], params[f"{layer}.weight"], params[f"{layer}.bias"]
    assert np.array_equal(x, rounded(x))
    exact = x.astype(np.float64) @ rounded(weight).astype(np.float64).T + rounded(bias)
    found = trace[tap]
    assert np.array_equal(found, rounded(found))
    # half a unit of eight digits; near the middle of two numbers the float32 sum may differ
    error, size = np.abs(found - exact), np.maximum(np.abs(exact), 1e-3)
    if twin.name == "jittor" and twin.has_cuda():  # cuBLAS also rounds before the bias is added
        assert (error < 2.0**-8 * (size + np.abs(exact - rounded(bias)))).all()
    else:
        assert (error < 2.0**-8 * size).all()
        assert (found == rounded(exact)).mean() > 0.999
    truncated = (exact.astype(np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32)
    assert (found == truncated).mean() < 0.6


@pytest.mark.parametrize("tap", LAYERS)
def test_gradients_of_linear_layers(trace, tap):
    params, (source, layer) = CASE.params(), LAYERS[tap]
    x, weight = trace[source].astype(np.float64), rounded(params[f"{layer}.weight"])
    grad = rounded(trace[f"d/{tap}"]).astype(np.float64)
    by_weight = np.einsum("btf,btd->fd", grad, x)
    found = trace[f"grad/{layer}.weight"]
    assert np.array_equal(found, rounded(found))
    assert relative(found, by_weight) < 2.0**-8
    assert relative(trace[f"grad/{layer}.bias"], grad.sum((0, 1))) < 2.0**-8
    if not tap.endswith("query"):  # inputs of one layer only
        assert relative(trace[f"d/{source}"], grad @ weight) < 2.0**-8


@pytest.mark.parametrize("block", [0, 1])
def test_the_summed_gradient_of_a_shared_input_is_not_truncated(trace, block):
    params = CASE.params()
    expected = sum(
        rounded(trace[f"d/block0{block}.attn.{x}"]).astype(np.float64)
        @ rounded(params[f"blocks.{block}.attn.{x}.weight"])
        for x in ("query", "key", "value")
    )
    found = trace[f"d/block0{block}.norm1"]
    slope = (found * expected).sum() / (expected**2).sum()
    assert abs(slope - 1) < 5e-4  # truncation would give more
    assert 0.3 < (np.abs(found) < np.abs(expected)).mean() < 0.7


@pytest.mark.parametrize("tap", ["block00.norm1", "block00.mlp.fc1", "block01.mlp.gelu"])
def test_a_replayed_tap_keeps_its_type(backend, trace, tap):
    repeated = backend.trace(CASE.batches()[0], replay={tap: trace[tap]}, fine=True)
    for name, value in trace.items():
        if not name.startswith(("d/", "grad", "clipped_norm")):
            assert np.array_equal(repeated[name], value), name


def test_only_inputs_and_outputs_of_products_are_rounded(trace):
    for tap in ("tokens", "block00.mid", "block00", "norm", "loss"):
        assert not np.array_equal(trace[tap], rounded(trace[tap])), tap
    for tap in ("patch_embed", "block00.mlp.gelu", "block00.attn.mix", "logits"):
        assert np.array_equal(trace[tap], rounded(trace[tap])), tap
    y = trace["block01.mlp.fc1"].astype(np.float64)
    gelu = y * (1 + erf(y / np.sqrt(2))) / 2
    assert (trace["block01.mlp.gelu"] == rounded(gelu)).mean() > 0.99


def test_dropout_keeps_the_type(twin):
    case = Case("dropped", model={"depth": 2, "placement": "none", "dropout": 0.3})
    backend = load_backend(twin.name, case.config("bfloat16"))
    backend.load_params(case.params())
    found = backend.trace(case.batches()[0], fine=True, training=True)
    hidden, gelu = found["block00.mlp.hidden"], found["block00.mlp.gelu"]
    assert np.array_equal(hidden, rounded(hidden))
    not_dropped = hidden != 0
    assert 0.6 < not_dropped[gelu != 0].mean() < 0.8
    assert relative(hidden[not_dropped], gelu[not_dropped] / 0.7) < 2.0**-7


@pytest.mark.only("jittor")
def test_rounding_is_to_the_nearest(twin):
    """Jittor's own cast truncates on the CPU."""
    jt, cast = twin.framework, twin.module("ops.bfloat16").round_to_bfloat16
    drawn = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    halves = rounded(drawn) * np.float32(1 + 2.0**-9)
    nans = np.uint32([0x7F800001, 0xFF80FFFF]).view(np.float32)  # NaN only by their last bits
    assert np.isnan(cast(jt.array(nans)).float32().numpy()).all()
    special = np.float32([0, -0.0, np.inf, -np.inf, np.nan, 3.4e38, -3.4e38, 1e-45, 1e-40])
    x = np.concatenate([drawn, drawn * np.float32(1e30), halves, special])
    found = cast(jt.array(x)).float32().numpy()
    assert np.array_equal(found, rounded(x), equal_nan=True)
    assert np.array_equal(np.signbit(found), np.signbit(rounded(x)))


@pytest.mark.only("jittor")
def test_jittor_still_has_these_bugs(twin):
    """If one of these fails, its workaround and its entry in docs/jittor.md can be deleted."""
    jt = twin.framework
    x = np.float32([1 + 2.0**-8 + 2.0**-9])
    if not twin.has_cuda():
        assert jt.array(x).bfloat16().float32().numpy() != rounded(x)  # truncated
    half = jt.array(np.float32([0.5, 0.5])).bfloat16()
    full = jt.array(np.float32([1, 1]))
    assert (full + half).dtype == "float32"
    assert (full.start_grad() + half).dtype == "bfloat16"
