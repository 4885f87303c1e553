"""Small faults planted in one twin: the ladder's bounds are narrow enough to see each of them."""

import functools

import pytest

from parity import record
from parity.cases import CASES
from parity.compare import compare_rung, load_tolerances, rung_of

pytestmark = pytest.mark.only("torch")

RUNGS = ("forward", "losses", "gradients", "one update", "twenty updates", "evaluation")
BY_NAME = {case.name: case for case in CASES}


@functools.cache
def clean(name):
    """The trace of a case without a fault."""
    return record.record_case(BY_NAME[name], "torch")


def scale_of_attention(monkeypatch, model, attention, functions):
    real = functions.scaled_dot_product_attention
    monkeypatch.setattr(
        functions, "scaled_dot_product_attention", lambda q, k, v: real(q * 1.001, k, v)
    )


def tanh_gelu(monkeypatch, model, attention, functions):
    real = functions.gelu
    monkeypatch.setattr(functions, "gelu", lambda x: real(x, approximate="tanh"))


def large_epsilon(monkeypatch, model, attention, functions):
    monkeypatch.setattr(model, "LAYER_NORM_EPS", 1e-5)


def row_of_another_map(monkeypatch, model, attention, functions):
    real = model.cls_scores
    monkeypatch.setattr(model, "cls_scores", lambda q, k, heads: real(q, q, heads))


def other_order_of_the_product(monkeypatch, model, attention, functions):
    real = model.fuse_rows
    monkeypatch.setattr(
        model, "fuse_rows", lambda q, k, heads, fusion: real(q[::-1], k[::-1], heads, fusion)
    )


def rate_off_by_a_thousandth(monkeypatch, model, attention, functions):
    real = record.lr_at
    monkeypatch.setattr(record, "lr_at", lambda *where: 1.001 * real(*where))


def schedule_off_by_one(monkeypatch, model, attention, functions):
    real = record.lr_at
    monkeypatch.setattr(record, "lr_at", lambda k, *rest: real(max(k - 1, 1), *rest))


@pytest.mark.parametrize(
    ("fault", "case", "first"),
    [
        (scale_of_attention, "nonoverlap", "forward"),
        (tanh_gelu, "vit", "forward"),
        (large_epsilon, "nonoverlap", "forward"),
        (row_of_another_map, "mul", "forward"),
        (other_order_of_the_product, "overlap", "forward"),
        (rate_off_by_a_thousandth, "nonoverlap", "twenty updates"),
        (schedule_off_by_one, "adamw", "twenty updates"),
    ],
)
def test_fault_is_seen(twin, monkeypatch, fault, case, first):
    expected = clean(case)
    modules = (twin.module("model"), twin.module("attention"), twin.framework.nn.functional)
    fault(monkeypatch, *modules)
    found = record.record_case(BY_NAME[case], "torch")
    bounds = load_tolerances()["twins"]
    differ = [
        rung
        for rung in RUNGS
        if compare_rung(
            rung_of(found, rung), rung_of(expected, rung), rung, case, "fault", bounds[rung]
        ).verdict
        == "differ"
    ]
    assert differ and differ[0] == first, differ
