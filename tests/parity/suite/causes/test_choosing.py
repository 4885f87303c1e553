"""Known mistakes in the choice of parts and in what the classifier reads of them are recognised.

The baseline is the NumPy reference of the network, the candidate another function of its taps.
"""

import numpy as np
import pytest
import reference

from parity.cases.case import Case
from parity.suite.causes import explain
from parity.suite.causes.context import Context
from transfg_core.models.layout import taps_of
from transfg_core.parts import draw_parts

FLAT = {"placement": "flatten", "top_k": 4}
CASES = {
    "maws": Case("maws", model={"selection": "maws", "top_k": 3}),
    "flat": Case("flat", model=FLAT | {"selection": "cls_similarity"}, seed=1),
    "layer": Case(
        "layer",
        model=FLAT
        | {
            "selection": "cls_similarity",
            "flatten_class_token": False,
            "flatten_part_layer": True,
        },
        seed=2,
    ),
    "random": Case("random", model={"selection": "random", "top_k": 4}, seed=3),
}


def context_of(case):
    config, batch, params = case.config(), case.batches()[0], case.params()
    drawn = draw_parts(config, batch.images)
    taps = reference.forward(params, batch.images, config.model, drawn).taps
    return Context(taps=taps, params=params, made_by=taps_of(config.model))


CONTEXTS = {name: context_of(case) for name, case in CASES.items()}


def said(name, tap, change):
    """The sentences about a candidate whose tap is `change` of all taps, with rounding noise."""
    context = CONTEXTS[name]
    found = np.asarray(change(context.taps))
    if found.dtype.kind == "f":
        found = (found * (1 + 1e-7 * np.random.default_rng(0).standard_normal(found.shape))).astype(
            np.float32
        )
    return [cause.text for cause in explain(tap, found, context.taps[tap], context)]


def order_of(taps):
    return np.argsort(-taps["part_scores"], axis=-1, kind="stable") + 1


def flat(rows):
    return rows.reshape(len(rows), -1)


def of_layers(taps, layers, first):
    """Part tokens gathered from these layers, behind the class token of layer `first`."""
    shares = np.split(taps["part_index"], len(layers), axis=1)
    parts = [
        np.take_along_axis(taps[name], index[..., None], axis=1)
        for name, index in zip(layers, shares, strict=True)
    ]
    return np.concatenate([taps[first][:, :1], *parts], axis=1)


BLOCKS = ["block00", "block01", "block02"]
FAULTS = [
    ("maws", "part_index", "one too small", lambda t: t["part_index"] - 1),
    ("maws", "part_index", "smallest scores", lambda t: flat(order_of(t)[..., :-4:-1])),
    ("maws", "part_index", "sorted by place", lambda t: flat(np.sort(order_of(t)[..., :3], -1))),
    ("maws", "part_index", "comes first", lambda t: flat(order_of(t)[..., 2::-1])),
    ("maws", "part_index", "ranks", lambda t: flat(order_of(t)[..., :3].swapaxes(1, 2))),
    ("maws", "part_index", "again", lambda t: flat(order_of(t)[..., :1].repeat(3, -1))),
    (
        "maws",
        "part_index",
        "mean over rows",
        lambda t: np.tile(np.argsort(-t["part_scores"].mean(1), axis=-1)[:, :3] + 1, 3),
    ),
    ("maws", "part_tokens", "last layer", lambda t: of_layers(t, BLOCKS[2:] * 3, "block02")),
    ("maws", "part_tokens", "reverse", lambda t: of_layers(t, BLOCKS[::-1], "block02")),
    ("maws", "part_tokens", "first layer's", lambda t: of_layers(t, BLOCKS, "block00")),
    ("flat", "features", "before tokens", lambda t: flat(t["norm"].swapaxes(1, 2))),
    ("flat", "features", "left out", lambda t: flat(t["part_tokens"])),
    ("flat", "features", "another place", lambda t: flat(np.roll(t["norm"], -1, axis=1))),
    ("layer", "features", "another place", lambda t: flat(t["part_norm"][:, :-1])),
    ("layer", "features", "before tokens", lambda t: flat(t["part_norm"][:, 1:].swapaxes(1, 2))),
    ("flat", "part_scores", "norm is left", lambda t: reference.cosines(t["block03"])[:, None]),
    ("layer", "part_scores", "least similar", lambda t: -t["part_scores"]),
]


@pytest.mark.parametrize(("name", "tap", "words", "change"), FAULTS)
def test_mistakes_are_recognised(name, tap, words, change):
    texts = said(name, tap, change)
    assert any(words in text for text in texts[:2]), texts


def test_products_instead_of_cosines():
    def products(taps):
        params = CASES["flat"].params()
        x = reference.layer_norm(taps["block03"], params["norm.weight"], params["norm.bias"])
        return np.einsum("bd,bnd->bn", x[:, 0], x[:, 1:])[:, None]

    assert "lengths" in said("flat", "part_scores", products)[0]


@pytest.mark.parametrize("name", CASES)
def test_noise_has_no_cause(name):
    for tap in ("part_index", "part_tokens", "features", "part_scores"):
        if tap in CONTEXTS[name].taps:
            assert said(name, tap, lambda taps, tap=tap: taps[tap]) == [], tap


def test_drawn_parts_have_no_scores_to_explain_them():
    assert all("scores" not in text for text in said("random", "part_index", shuffled))


def shuffled(taps):
    return taps["part_index"] % 5 + 1
