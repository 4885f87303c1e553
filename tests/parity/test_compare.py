"""The comparison of traces, on traces made by hand; and that its tables are in use."""

from datetime import date
from fnmatch import fnmatchcase

import numpy as np
import pytest
from synthetic import record_noise

from parity.cases import BATCH, CASES, UPDATES
from parity.compare import (
    allowance,
    compare_rung,
    distance,
    load_differences,
    load_tolerances,
    rung_of,
)
from parity.golden import GOLDENS
from parity.record import trace_path
from parity.suite import golden_rungs, load_trace
from transfg_core.params import param_shapes

A = np.linspace(1, 2, 12, dtype=np.float32).reshape(3, 4)
KEY, QUERY = "grad/blocks.0.attn.key.bias", "grad/blocks.0.attn.query.bias"


def verdict(trace, reference, rung="gradients", case="nonoverlap", bound=1e-5):
    return compare_rung(trace, reference, rung, case, "a : b", bound)


def with_nan(*places: tuple[int, int]) -> np.ndarray:
    value = A.copy()
    for place in places:
        value[place] = np.nan
    return value


def test_distance_is_relative_l2():
    assert distance(A, A) == 0.0
    assert distance(A * (1 + 2**-10), A) == pytest.approx(2**-10)
    shifted = A.copy()
    shifted[0, 0] += 0.5
    assert distance(shifted, A) == pytest.approx(0.5 / np.linalg.norm(A))
    assert distance(A, np.zeros_like(A)) > 1e20
    assert distance(np.zeros_like(A), np.zeros_like(A)) == 0.0


def test_distance_is_taken_in_float64():
    assert distance(np.float32([3e30, 1]), np.float32([3e30, 1])) == 0.0
    assert distance(np.float32([3e30]), np.float32([2e30])) == pytest.approx(0.5)


@pytest.mark.parametrize(
    "value",
    [A.T, A[:2], A[None], A.astype(int), A.astype(float), with_nan((0, 0)), A * np.inf, A.ravel()],
    ids=["transposed", "cut", "axis more", "kind", "double", "nan", "infinite", "flat"],
)
def test_what_cannot_be_compared_is_infinitely_far(value):
    assert distance(value, A) == np.inf
    assert distance(A, value) == np.inf


def test_two_diverged_traces_do_not_agree():
    assert distance(with_nan((0, 1)), with_nan((0, 1))) == np.inf
    assert distance(A * np.inf, A * np.inf) == np.inf


def test_integers_are_equal_or_not():
    index = np.array([[1, 5, 2]])
    assert distance(index, index) == 0.0
    assert distance(index.astype(np.int32), index) == np.inf
    assert distance(index + [0, 0, 1], index) == np.inf


def test_worst_tap_is_named():
    reference = {"x": A, "y": A, "z": A}
    found = verdict({"x": A * (1 + 1e-6), "y": A * (1 + 1e-4), "z": A}, reference)
    assert (found.verdict, found.worst_tap, found.taps) == ("differ", "y", 3)
    assert found.value == pytest.approx(1e-4, rel=0.01)
    assert verdict({"x": A, "y": A * (1 + 1e-6), "z": A}, reference).verdict == "agree"


def test_exact_rung_takes_no_rounding():
    moved = np.nextafter(A, np.float32(9))
    assert verdict({"x": moved}, {"x": A}, "params", bound=0.0).verdict == "differ"
    assert verdict({"x": A.copy()}, {"x": A}, "params", bound=0.0).verdict == "agree"


@pytest.mark.parametrize(
    ("trace", "reference", "worst"),
    [({"x": A}, {"x": A, "y": A}, "y"), ({"x": A, "y": A}, {"x": A}, "y"), ({}, {}, "no taps")],
    ids=["missing", "extra", "empty"],
)
def test_tap_of_one_trace_alone_differs(trace, reference, worst):
    found = verdict(trace, reference)
    assert (found.verdict, found.worst_tap, found.value) == ("differ", worst, np.inf)


def test_noise_where_zero_should_be_is_no_difference():
    """Bounded by 32 roundings of the query bias's gradient, in both traces."""
    reference = {KEY: A * 1e-8, QUERY: A}
    assert verdict({KEY: -A * 1e-8, QUERY: A}, reference).verdict == "agree"
    for wrong in ({KEY: A * 1e-5, QUERY: A}, {KEY: with_nan((0, 0)), QUERY: A}):
        assert verdict(wrong, reference).worst_tap == KEY
        assert verdict(reference, wrong).worst_tap == KEY
    assert verdict(reference, {KEY: A * 1e-5, QUERY: A}).verdict == "differ"
    assert verdict({"x": -A * 1e-8, "y": A}, {"x": A * 1e-8, "y": A}).verdict == "differ"


def test_documented_difference_has_its_bound_where_it_is_documented():
    trace, reference = {"param" + KEY[4:]: A, "x": A}, {"param" + KEY[4:]: A + 0.03, "x": A}
    trace |= {"param" + QUERY[4:]: A}
    reference |= {"param" + QUERY[4:]: A}
    found = verdict(trace, reference, "one update", "adam")
    assert (found.verdict, found.taps) == ("agree", 3)
    for wrong in (A - 0.05, with_nan((0, 0)), A[:2]):
        found = verdict(trace | {"param" + KEY[4:]: wrong}, reference, "one update", "adam")
        assert (found.verdict, found.worst_tap) == ("differ", "param" + KEY[4:])
    for rung, case in (("one update", "nonoverlap"), ("gradients", "adam")):
        assert verdict(trace, reference, rung, case).verdict == "differ"


def test_rungs_are_told_apart():
    trace = {"one update/loss": A, "updates/x": A, "one update/param/y": A}
    assert list(rung_of(trace, "one update")) == ["loss", "param/y"]


def test_every_bound_and_every_allowance_is_in_use(tmp_path, monkeypatch):
    """What the recorder writes has the rungs of tolerances.yaml, neither more nor fewer."""
    record_noise(tmp_path, monkeypatch)
    tolerances = load_tolerances()
    taps: set[tuple[str, str, str]] = set()
    for case in CASES:
        for key in load_trace(tmp_path, "case", case.name, "torch"):
            rung, _, tap = key.partition("/")
            taps.add((case.name, rung, tap))
    assert {rung for _, rung, _ in taps} == set(tolerances["twins"])
    for golden in GOLDENS:
        rungs = golden_rungs(golden.trace())
        assert set(rungs) == set(tolerances["golden"]) and all(rungs.values())
        assert trace_path(tmp_path, "golden", golden.name, "torch").is_file()
    for entry in load_differences():
        allow = entry.get("allow", {"cases": [], "rungs": [], "taps": []})
        for case in allow["cases"]:
            for rung in allow["rungs"]:
                for pattern in allow["taps"]:
                    assert any(
                        (case, rung) == tap[:2] and fnmatchcase(tap[2], pattern) for tap in taps
                    ), (entry["id"], case, rung, pattern)
    # and no more is allowed for than the key biases of the two adaptive optimisers
    entries = load_differences()
    allowed = {tap for tap in taps if allowance(*tap, entries) is not None}
    assert allowed and all(".attn.key.bias" in tap[2] for tap in allowed)
    assert {tap[0] for tap in allowed} == {"adam", "adamw"}


def test_differences_are_complete():
    entries = load_differences()
    assert len({entry["id"] for entry in entries}) == len(entries)
    for entry in entries:
        assert {"id", "what", "measured", "upstream", "expires"} <= set(entry)
        assert set(entry) <= {"id", "what", "measured", "upstream", "expires", "allow"}
        expires = entry["expires"]
        assert expires == "never" or date.today() < expires, f"{entry['id']}: look again upstream"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_cases_build(case):
    config, params, batches = case.config(), case.params(), case.batches()
    shapes = param_shapes(config.model, config.data.crop)
    assert {name: value.shape for name, value in params.items()} == shapes
    assert all(np.std(value) > 0.01 for value in params.values())
    assert len(batches) == UPDATES + 1
    for batch in batches:
        assert batch.images.shape == (BATCH, 3, *config.data.crop)
        assert batch.images.dtype == np.float32 and batch.labels.dtype == np.int64
        assert 0 <= batch.labels.min() and batch.labels.max() < config.model.classes
        assert len(set(batch.labels.tolist())) < BATCH  # pairs of one class
    assert config.model.dropout == 0 and config.data.crop[0] != config.data.crop[1]
    assert all(
        np.array_equal(a, b) for a, b in zip(params.values(), case.params().values(), strict=True)
    )


def test_cases_cover_the_choices():
    configs = [case.config() for case in CASES]
    assert {config.model.placement for config in configs} == {"transfg", "none"}
    assert {config.model.fusion for config in configs} == {"matmul", "mul", "add", "lastlayer"}
    assert {config.optim.name for config in configs} == {"sgd", "adam", "adamw"}
    assert {config.model.stride < config.model.patch for config in configs} == {True, False}
    assert {config.train.accumulation > 1 for config in configs} == {True, False}
    assert {config.optim.clip is None for config in configs} == {True, False}
    assert {config.loss.label_smoothing > 0 for config in configs} == {True, False}
    assert any(config.optim.groups for config in configs)


@pytest.mark.parametrize("golden", GOLDENS, ids=lambda golden: golden.name)
def test_goldens_build(golden):
    config, batch, trace = golden.config(), golden.batch(), golden.trace()
    shapes = param_shapes(config.model, config.data.crop)
    for section in ("grad", "after"):
        found = {
            n.removeprefix(f"{section}/"): v.shape
            for n, v in trace.items()
            if n.startswith(section)
        }
        assert found == shapes
    assert batch.images.shape == (6, 3, *config.data.crop)
    assert golden.checkpoint.is_file()
