"""Claims about dropout hold for right masks and fail on planted ones."""

import numpy as np
import pytest
from claims import SHAPE, failing, given

from parity.cases.case import BY_NAME
from parity.suite.checks import CHECKS
from parity.suite.checks.dropout import DROPOUT, mask_taps, site_claims, sites, update_claims
from transfg_core.models.layout import taps_of

U = 2.0**-24


def dropped(values, p=DROPOUT, seed=1, shape=None, scale=None):
    """Dropout with a mask of `shape`, broadcast to the values."""
    mask = np.random.default_rng(seed).random(shape or values.shape) >= p
    return (values * mask * np.float32(scale or 1 / (1 - p))).astype(np.float32)


@pytest.mark.parametrize("shape", [SHAPE, (6, 4, 48), (6, 21, 80)])
def test_right_masks_pass(shape):
    for seed in range(25):
        values = given(seed, shape)
        assert not failing(site_claims(values, dropped(values, seed=seed + 100), DROPOUT, U))


def test_inputs_that_are_zero_are_not_counted():
    values = given()
    values[given(5) > 1] = 0
    assert not failing(site_claims(values, dropped(values), DROPOUT, U))
    assert SHARE in failing(site_claims(0 * values, 0 * values, DROPOUT, U))


SCALE, SHARE = "zero or divided by 1 - p", "share of zeros is p"
NEAR, LINE = "neighbours are independent", "no line is dropped whole"


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (lambda x: x, {SCALE, SHARE, NEAR}),  # no dropout
        (lambda x: x / np.float32(1 - DROPOUT), {SHARE, NEAR}),  # rescaled, not dropped
        (lambda x: dropped(x, scale=1), {SCALE}),  # dropped, not rescaled
        (lambda x: dropped(x, scale=1 / DROPOUT), {SCALE}),
        (lambda x: dropped(x, p=1 - DROPOUT), {SCALE, SHARE}),  # p for 1 - p
        (lambda x: dropped(x, p=0.25), {SCALE, SHARE}),
        (lambda x: dropped(x, shape=(6, 21, 1)), {NEAR, LINE}),  # whole tokens
        (lambda x: dropped(x, shape=(6, 1, 48)), {NEAR, LINE}),  # whole channels of an image
        (lambda x: dropped(x, shape=(1, 21, 48)), {NEAR, LINE}),  # one mask for the batch
        (lambda x: dropped(x, shape=(6, 1, 1)), {NEAR, LINE}),  # whole images
        (lambda x: np.where(x == x[2, 3:4], 0, dropped(x)), {LINE}),  # an additional token
    ],
)
def test_planted_masks_fail(fault, expected):
    values = given()
    found = failing(site_claims(values, fault(values).astype(np.float32), DROPOUT, U))
    assert expected <= found


SITES = {"embed": "tokens", "block00.mlp.out": "block00.mlp.fc2"}


def traces(fault=lambda x: x, seeds=(1, 2), evaluation=lambda x: x):
    """A trace in evaluation mode and one in training mode, of a model with only dropout."""
    pairs = {"embed": "tokens", "block00.mlp.out": "block00.mlp.fc2"}
    evaluated, trained = {}, {}
    for seed, (site, source) in zip(seeds, pairs.items(), strict=True):
        values, slope = given(len(site)), given(len(site) + 50)
        mask = fault(dropped(np.ones(SHAPE, np.float32), seed=seed))
        evaluated |= {source: values, site: evaluation(values), f"d/{site}": slope}
        trained |= {site: values * mask, f"d/{source}": slope * mask}
    return evaluated, trained


def test_sites_are_found_in_pairs():
    evaluated, _ = traces()
    made_by = taps_of(BY_NAME["overlap"].config().model)
    assert sites(evaluated, made_by) == SITES


def test_mask_claims():
    taps = mask_taps(*traces(), SITES, DROPOUT, U)
    assert not failing({n: v for n, v in taps.items() if isinstance(v, bool)})
    assert taps["embed/elements"] == np.prod(SHAPE)
    assert taps["embed/scale"] == pytest.approx(1 / (1 - DROPOUT), rel=4 * U)


def test_one_mask_for_two_sites_fails():
    assert not mask_taps(*traces(seeds=(1, 1)), SITES, DROPOUT, U)["sites draw apart"]


def test_dropout_in_evaluation_mode_fails():
    taps = mask_taps(*traces(evaluation=dropped), SITES, DROPOUT, U)
    assert not taps["embed/nothing dropped in evaluation"]


def test_gradient_with_another_mask_fails():
    evaluated, trained = traces()
    _, others = traces(seeds=(3, 4))
    trained["d/tokens"] = others["d/tokens"]
    taps = mask_taps(evaluated, trained, SITES, DROPOUT, U)
    assert failing({n: v for n, v in taps.items() if isinstance(v, bool)}) == {
        "gradient has the same mask"
    }


class Dropping:
    """A backend whose loss shows which masks were drawn: each draw gives another loss."""

    def __init__(self, fault=""):
        self.fault, self.mode = fault, "train"

    def load_params(self, arrays):
        self.updates = 0

    def train_step(self, batches, lr):
        self.updates += 1
        seed = 1 if self.fault == "same seed" else self.updates
        if self.fault == "stream runs on":
            self.drawn = seed = getattr(self, "drawn", 0) + 1
        if self.fault != "stays in evaluation":
            self.mode = "train"
        rng = np.random.default_rng(seed)
        draws = [rng.random() for _ in batches]
        draws = draws[:1] if self.fault == "one mask for all" else draws
        on = self.mode == "train" and self.fault != "off"
        return {"loss": 1.0 + on * (0.1 + np.mean(draws))}

    def eval_step(self, images):
        self.mode = "eval"
        return {"logits": np.full(3, 1.5 if self.fault == "evaluates so" else 1.0)}

    def fetch(self, handle):
        return handle


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("", set()),
        ("off", {"every update drops", "updates draw apart", "micro-batches draw apart"}),
        ("same seed", {"updates draw apart"}),
        (
            "stream runs on",
            {"an update draws the same again", "an evaluation in between changes nothing"},
        ),
        ("stays in evaluation", {"every update drops", "an evaluation in between changes nothing"}),
        ("one mask for all", {"micro-batches draw apart"}),
        ("evaluates so", {"nothing dropped in evaluation"}),
    ],
)
def test_update_claims(fault, expected):
    undropped = {"loss": np.float64(1.0), "logits": np.ones(3)}
    claims = update_claims(Dropping(fault), CHECKS.batches()[0], undropped)
    assert (
        expected <= failing(claims)
        if fault == "stays in evaluation"
        else (expected == failing(claims))
    )
