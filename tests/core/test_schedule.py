"""The learning rate of every update, against the published program and against arithmetic."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transfg_core.config.sections import OptimConfig
from transfg_core.schedule import lr_at

GOLDEN = sorted((Path(__file__).parents[2] / "parity" / "cases" / "golden").glob("*_trace.npz"))
PUBLISHED = OptimConfig(lr=0.03, warmup=500, schedule="cosine")


@pytest.mark.parametrize(("update", "rate"), [(1, 6e-5), (500, 0.03), (10000, 0.0)])
def test_published_recipe(update, rate):
    assert lr_at(update, PUBLISHED, 10000) == rate


def test_equals_the_published_program_exactly():
    assert GOLDEN
    optim = OptimConfig(lr=0.03, warmup=2)
    for path in GOLDEN:
        with np.load(path) as trace:
            expected = trace["train_lrs"].tolist()
        assert [lr_at(update, optim, 6) for update in range(1, 7)] == expected, path.name


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("linear", [0.5, 1.0, 0.75, 0.5, 0.25, 0.0]),
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("cosine", [0.5, 1.0, 0.5 + 0.5 * math.sqrt(0.5), 0.5, 0.5 - 0.5 * math.sqrt(0.5), 0.0]),
    ],
)
def test_shapes(schedule, expected):
    optim = OptimConfig(lr=1.0, warmup=2, schedule=schedule)
    assert [lr_at(k, optim, 6) for k in range(1, 7)] == pytest.approx(expected, abs=1e-15)


@settings(deadline=None)
@given(
    schedule=st.sampled_from(["cosine", "linear", "constant"]),
    steps=st.integers(1, 3000),
    share=st.floats(0, 1),
    base=st.floats(0, 10),
)
def test_rises_to_the_base_rate_then_never_rises(schedule, steps, share, base):
    warmup = int(share * steps)
    optim = OptimConfig(lr=base, warmup=warmup, schedule=schedule)
    rates = [lr_at(k, optim, steps) for k in range(1, steps + 1)]
    assert all(0 <= rate <= base for rate in rates)
    top = max(warmup, 1)
    assert rates[:top] == sorted(rates[:top])
    assert rates[top - 1 :] == sorted(rates[top - 1 :], reverse=True)
    if warmup:
        assert rates[warmup - 1] == base


def test_without_warmup_the_first_update_is_already_below_the_base():
    assert lr_at(1, OptimConfig(lr=1.0, warmup=0, schedule="linear"), 4) == 0.75


@pytest.mark.parametrize("update", [0, 7])
def test_updates_are_counted_from_one_to_the_last(update):
    with pytest.raises(AssertionError, match="outside 1..6"):
        lr_at(update, OptimConfig(warmup=2), 6)
