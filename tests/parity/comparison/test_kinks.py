"""Kinks, branches and ties: right ReLU networks pass, and faults behind a tie are still found."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from relu_networks import POOL, Network, traces

from parity import compare
from parity.comparison.evidence import find_evidence
from parity.comparison.judge import judge
from parity.comparison.kinks import Kink, find_kinks
from parity.comparison.pools import POOLS, Pool, pooled
from parity.comparison.ties import LISTED
from parity.comparison.trace import Trace
from parity.comparison.verdict import Evidence
from parity.comparison.zeros import ZERO, ZERO_STEP
from parity.errors import ParityError

NETWORKS = {
    "plain": Network(3),
    "deep": Network(20, 32, 8),
    "norm": Network(6, norm=True, residual=True),
    "deep norm": Network(16, 16, 8, norm=True, residual=True),
    "pool": Network(4, norm=True, pool=True),
}
U = 2.0**-24
rng = np.random.default_rng(0)


def of(rows, *verdicts, precision="float32"):
    """The taps with these verdicts."""
    wanted = [r for r in rows if r.precision == precision and r.verdict in verdicts]
    return [f"{row.stage}/{row.tap}" for row in wanted]


# Right networks


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("seed", range(2))
def test_right_networks_that_follow_are_equivalent(name, seed):
    """Two inputs of a ReLU lie on the two sides of zero; all follow the candidate there."""
    rows = compare(traces(NETWORKS[name], seed, followed=True))
    assert {row.verdict for row in rows} == {"equivalent"}
    assert {row.precision for row in rows} == {"float32", "float64"}
    tied = [row for row in rows if row.stage == "choices" and row.ties]
    assert tied and all(tie["margin"] <= tie["noise"] for row in tied for tie in row.ties)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("ties", [1, 5])
def test_right_networks_that_choose_freely_are_never_different(name, ties):
    """Kinks are found in the arrays. Without a common branch a gradient is undecided."""
    for seed in range(2):
        rows = compare(traces(NETWORKS[name], seed, ties))
        assert not of(rows, "different", "less precise", "vacuous")
        assert {r.verdict for r in rows if r.precision == "float64"} == {"equivalent"}
        assert {r.verdict for r in rows if r.stage == "forward"} == {"equivalent"}
        undecided = [row.reason for row in rows if row.verdict == "undecided"]
        assert all(reason.startswith("behind ") for reason in undecided)


def test_one_tie_is_mostly_decided():
    """Eight recordings fall on two branches. Seldom do both sides share none."""
    rows = [row for seed in range(20) for row in compare(traces(Network(3), seed, 1))]
    gradients = [row for row in rows if row.stage == "gradients" and row.precision == "float32"]
    behind = sum(row.verdict == "undecided" for row in gradients)
    assert behind < 0.1 * len(gradients)
    assert sum(row.reason == "1 ties" for row in gradients) > 0.5 * len(gradients)


def test_noise_is_of_one_branch():
    """A recording of another branch would widen the bound by the effect of the tie."""
    found = traces(Network(3), 3, 1)
    rows = {row.tap: row for row in compare(found) if row.stage == "gradients"}
    jumps = [
        np.linalg.norm(t.taps["gradients/0.weight"] - found[2].taps["gradients/0.weight"])
        / np.linalg.norm(found[2].taps["gradients/0.weight"])
        for t in found
        if t.manifest["precision"] == "float32"
    ]
    assert max(jumps) > 1e-4 and rows["0.weight"].bound < 1e-5


# Wrong ones


def scaled(taps):
    taps["gradients/1.weight"] = taps["gradients/1.weight"] * np.float32(1.01)


def transposed(taps):
    taps["gradients/1.weight"] = np.ascontiguousarray(taps["gradients/1.weight"].T)


def term_missing(taps):
    """The gradient of the first sample is not added."""
    first = taps["forward/0.relu"][:1].T @ np.ones((1, 32), "f4") * np.float32(1e-4)
    taps["gradients/1.weight"] = taps["gradients/1.weight"] - first.astype(
        taps["gradients/1.weight"].dtype
    )


def left_at_zero(taps):
    taps["gradients/1.weight"] = taps["gradients/1.weight"] * 1e-8


@pytest.mark.parametrize("followed", [True, False])
@pytest.mark.parametrize("fault", [scaled, transposed, term_missing, left_at_zero])
def test_a_wrong_gradient_behind_ties_is_different(fault, followed):
    for seed in range(5):
        rows = compare(traces(Network(3), seed, 1, followed=followed, fault=fault))
        assert of(rows, "different") == ["gradients/1.weight"] or (
            not followed and any("behind" in row.reason for row in rows)
        )
        assert of(rows, "different", precision="float64") == ["gradients/1.weight"]


def test_few_ties_do_not_explain_a_gradient_that_is_far_off():
    found = traces(Network(3), 0, 1, fault=transposed)[:2]
    rows = compare(found)
    assert of(rows, "different") == ["gradients/1.weight"]
    assert "than 1 ties explain" in next(r.reason for r in rows if r.verdict == "different")
    clean = traces(Network(3), 0, 1)[:2]
    assert not of(compare(clean), "different") and of(compare(clean), "undecided")


def test_wrong_numbers_before_a_kink_excuse_nothing():
    """The input of the ReLU is off, so other choices follow: they are no ties."""

    def shifted(taps):
        taps["forward/0.linear"] = taps["forward/0.linear"] + np.float32(0.1)
        taps["forward/0.relu"] = np.maximum(taps["forward/0.linear"], 0)
        taps["gradients/0.weight"] = taps["gradients/0.weight"] * np.float32(1.1)

    rows = compare(traces(Network(3), 0, 1, fault=shifted))
    assert {"forward/0.linear", "forward/0.relu", "gradients/0.weight"} <= set(
        of(rows, "different")
    )


# Choices that are recorded


def choices(candidate, own=None, kind="relu", x=None, corners=(0.0,), settings=None, **inputs):
    """The row of choices; `x`: the exact input, which the two recordings have with some noise."""
    exact = np.array([[-1.0, 1e-7, 2.0], [3.0, -2.0, 1.0]]) if x is None else x
    noise = {"a": 1e-7, "b": -1e-7, "ref": 0.0} | inputs
    facts = {"kind": kind, "input": "forward/x", "corners": list(corners)}
    kinks = {"choices/r": facts | {"settings": settings or {}}}
    found = []
    for name, precision, value in (
        ("a", "float32", own),
        ("b", "float32", candidate),
        ("ref", "float64", own),
    ):
        manifest = {"producer": {"name": name}, "precision": precision, "subject": {}}
        manifest |= {"kinks": kinks, "branch": "1"}
        taps = {"forward/x": (exact + noise[name]), "choices/r": np.asarray(value)}
        found.append(Trace(Path(name), manifest, taps))
    return {row.stage: row for row in judge(Evidence(*found))}["choices"]


OWN = np.array([[0, 1, 1], [1, 0, 1]], np.uint8)


def changed(place, value, choice=OWN):
    copy = choice.copy()
    copy[place] = value
    return copy


def test_a_choice_within_the_noise_is_a_tie():
    row = choices(changed((0, 1), 0), OWN)
    assert (row.verdict, row.reason) == ("equivalent", "1 ties")
    (tie,) = row.ties
    assert (tie["image"], tie["place"], tie["baseline"], tie["candidate"]) == (0, (0, 1), 1, 0)
    assert tie["margin"] == pytest.approx(1e-7) and tie["noise"] == pytest.approx(4e-7)


def test_a_choice_beyond_the_noise_is_wrong():
    row = choices(changed((1, 1), 1), OWN)
    assert (row.verdict, row.reason) == ("different", "1 of 1 choices that differ are no ties")
    # the noise of another sample is no excuse
    exact = np.array([[-1.0, 1e-7, 2.0], [3.0, -9e-7, 1.0]])
    elsewhere = np.array([[5e-7], [1e-7]])
    assert choices(changed((1, 1), 1), OWN, x=exact, a=elsewhere).verdict == "different"
    assert choices(changed((1, 1), 1), OWN, x=exact, a=elsewhere[::-1]).verdict == "equivalent"


def test_a_choice_that_both_make_but_the_reference_does_not():
    wrong = changed((1, 1), 1)
    found = choices(wrong, OWN)
    assert found.verdict == "different"
    x = np.array([[-1.0, 1e-7, 2.0], [3.0, -2.0, 1.0]])
    facts = {"choices/r": {"kind": "relu", "input": "forward/x", "corners": [0.0]}}
    manifest = {"producer": {"name": "a"}, "precision": "float32", "subject": {}, "kinks": facts}
    pair = [Trace(Path(n), manifest, {"forward/x": x, "choices/r": wrong}) for n in "ab"]
    exact = {"forward/x": x, "choices/r": OWN}
    reference = Trace(Path("r"), manifest | {"precision": "float64"}, exact)
    assert judge(Evidence(*pair, reference))[1].verdict == "different"
    assert judge(Evidence(*pair))[1].verdict == "equivalent"  # nothing shows that it is wrong


def test_two_corners_are_both_crossed():
    """From below the first corner to above the second: the further one counts."""
    x = np.array([[-1e-8, 1.0]])
    own, other = np.array([[0, 1]], np.uint8), np.array([[2, 1]], np.uint8)
    row = choices(other, own, "clamp", x, corners=(0.0, 1e-8))
    assert row.verdict == "equivalent" and row.ties[0]["margin"] == pytest.approx(2e-8)
    assert choices(other, own, "relu6", x, corners=(0.0, 6.0)).verdict == "different"


def test_an_index_of_a_pool_is_a_tie_or_wrong():
    maps = np.zeros((1, 2, 2, 4))
    maps[0, 1] = [[1, 5, 2, 0], [5 + 1e-8, 4, 3, 3]]
    own = np.array([[[[0, 2]], [[4, 6]]]])
    pool = {"axes": [{}, {}]}
    facts = {"kind": "max pool", "x": maps, "corners": (), "settings": pool}
    tie = choices(changed((0, 1, 0, 0), 1, own), own, **facts)
    assert tie.verdict == "equivalent" and tie.ties[0]["margin"] == pytest.approx(1e-8)
    for wrong in (5, 99, -1):
        row = choices(changed((0, 1, 0, 0), wrong, own), own, **facts)
        assert row.verdict == "different"
    assert choices(changed((0, 1, 0, 1), 2, own), own, **facts).verdict == "different"


def test_an_index_along_an_axis():
    x = np.array([[1.0, 4.0, 4.0 + 1e-8, 2.0]])
    own = np.array([[2, 1]])
    facts = {"kind": "top-k", "x": x, "corners": (), "settings": {"axis": -1, "k": 2}}
    assert choices(np.array([[1, 2]]), own, **facts).reason == "2 ties"
    assert choices(np.array([[2, 3]]), own, **facts).verdict == "different"


def test_a_choice_is_believed_only_if_its_input_is():
    row = choices(changed((0, 1), 0), OWN, b=1e-3)
    assert row.verdict == "different" and "x are different" in row.reason


def test_the_list_of_ties_is_short_and_begins_with_the_wrong_ones():
    x = np.repeat([[1e-8], [10.0]], 100, axis=1)
    x[1, 0] = -1.0
    own = (x > 0).astype(np.uint8)
    other = own * np.array([[0], [1]], np.uint8)
    row = choices(other, own, x=x)
    assert row.reason == "100 ties" and len(row.ties) == LISTED
    x[0, 99] = 1.0
    row = choices(other, own, x=x)
    assert row.reason.startswith("1 of 100") and row.ties[0]["place"] == (0, 99)


# Kinks that are found


def found(function, x=None, more=()):
    x = rng.standard_normal((4, 6, 8)).astype("f4") if x is None else x
    manifest = {"producer": {"name": "a"}, "precision": "float32", "subject": {}}
    values = [x, *more]
    taps = [{"forward/x": v, "forward/y": function(v)} for v in values]
    return find_kinks([Trace(Path(str(i)), manifest, t) for i, t in enumerate(taps)])


@pytest.mark.parametrize(
    ("function", "corners"),
    [
        (lambda x: np.maximum(x, 0), (0.0,)),
        (lambda x: np.clip(x, 0, np.float32(0.5)), (0.0, 0.5)),
        (lambda x: np.clip(x, np.float32(-0.25), np.float32(0.5)), (-0.25, 0.5)),
        (lambda x: np.where(x > 0, x, np.float32(0.01) * x), (0.0,)),
        (np.abs, (0.0,)),
        (lambda x: 3 * x * np.clip(3 * x + 3, 0, 6) / 6, None),  # of 3 x, which is no tap
    ],
)
def test_functions_with_corners_are_found(function, corners):
    kinks = found(function)
    expected = [Kink("forward/y", "forward/x", kinks[0].function, corners)] if corners else []
    assert kinks == expected


def test_hard_swish_is_found():
    x = 4 * rng.standard_normal((30, 40)).astype("f4")
    (kink,) = found(lambda x: x * np.clip(x + 3, 0, 6) / 6, x)
    assert kink.corners == (-3.0, 3.0)
    assert set(np.unique(kink.choose(x))) == {0, 1, 2}


@pytest.mark.parametrize("function", [np.tanh, lambda x: 0.5 * x, lambda x: x + 1, lambda x: x])
def test_smooth_functions_have_no_kink(function):
    assert found(function) == []


def test_a_kink_holds_in_every_trace_of_its_producer():
    x = rng.standard_normal((4, 6)).astype("f4")
    changes = iter([0, 0, 1e-3])

    def relu(v):
        return np.maximum(v, 0) + np.float32(next(changes))

    assert found(relu, x, [x + 1, x + 2]) == []


def test_zeros_show_a_relu_whose_input_is_not_recorded():
    x = np.maximum(rng.standard_normal((4, 60)).astype("f4"), 0)
    manifest = {"producer": {"name": "a"}, "precision": "float32", "subject": {}}
    (kink,) = find_kinks([Trace(Path("a"), manifest, {"forward/y": x, "gradients/y": x})])
    assert (kink.input, kink.output, kink.corners) == ("forward/y", "forward/y", (0.0,))


@pytest.mark.parametrize("pool", POOLS, ids=str)
def test_pools_are_found(pool):
    x = rng.standard_normal((2, 6, 8, 10)).astype("f4")
    (kink,) = found(lambda x: pooled(x, pool)[0], x)
    assert kink.input == "forward/x" and kink.pool == pool
    index = kink.choose(x)
    planes = np.moveaxis(x, 3, 1) if pool.first == 1 else x
    places = np.moveaxis(index, 3, 1) if pool.first == 1 else index
    flat, where = planes.reshape(*planes.shape[:2], -1), places.reshape(*places.shape[:2], -1)
    values = np.take_along_axis(flat, where, 2).reshape(places.shape)
    result = pooled(x, pool)[0]
    assert np.array_equal(np.moveaxis(values, 1, 3) if pool.first == 1 else values, result)


def test_a_pool_by_hand():
    x = np.arange(16.0).reshape(1, 1, 4, 4)
    x[0, 0, 0, 0] = 99
    best, index = pooled(x, POOL)
    assert best.tolist() == [[[[99, 7], [13, 15]]]] and index.tolist() == [[[[0, 7], [13, 15]]]]
    best, index = pooled(-x, Pool(3, 2, 1))
    assert best.tolist() == [[[[-1, -1], [-4, -5]]]] and index.tolist() == [[[[1, 1], [4, 5]]]]


# Roles


def test_two_float64_recordings_have_roles_by_their_branch():
    given = traces(Network(3), 0, followed=True)
    for order in (given, [*given[:2], *given[:1:-1]]):
        main, exact = find_evidence(order)
        assert main.reference.manifest["branch"] == given[1].manifest["branch"]
        assert exact.baseline.manifest["branch"] == exact.candidate.manifest["branch"]
        assert main.reference is not exact.baseline
    with pytest.raises(ParityError, match="two float64 references"):
        find_evidence([
            replace(t, manifest={**t.manifest, "branch": None}) for t in given
        ])  # fmt: skip


# Zeros by structure


def test_biases_before_a_norm_are_zero_by_structure():
    for followed in (True, False):
        rows = compare(traces(Network(3, norm=True), 1, followed=followed))
        zero = [f"{r.precision} {r.tap}" for r in rows if r.reason == ZERO]
        assert zero == [f"{p} {i}.bias" for p in ("float32", "float64") for i in range(3)]


@pytest.mark.parametrize(
    ("tap", "factor"),
    [("0.bias", 1e4), ("1.norm.bias", 1e-9), ("1.norm.weight", 0.5), ("1.norm.bias", 1 + 1e-4)],
)
def test_what_is_no_zero_is_not_excused(tap, factor):
    """Noise that is too large, a gradient left at zero, and gradients that are a little off."""

    def fault(taps):
        taps[f"gradients/{tap}"] = taps[f"gradients/{tap}"] * np.float32(factor)

    rows = compare(traces(Network(3, norm=True), 1, followed=True, fault=fault))
    assert of(rows, "different") == [f"gradients/{tap}"]


def test_a_small_gradient_is_not_zero():
    """A millionth of its weight's gradient, but with all its digits: a factor of two shows."""
    tap = "gradients/1.norm.bias"
    given = traces(Network(3, norm=True), 1, followed=True)
    small = [replace(t, taps={**t.taps, tap: t.taps[tap] * np.float32(1e-6)}) for t in given]
    assert not of(compare(small), "different", "undecided")
    small[1] = replace(small[1], taps={**small[1].taps, tap: small[1].taps[tap] * 2})
    assert of(compare(small), "different") == [tap]


@pytest.mark.parametrize(("size", "expected"), [(1e-7, "undecided"), (1e-16, "equivalent")])
def test_a_gradient_below_the_noise_of_float32_is_no_zero(size, expected):
    """Float64 resolves the first: its digits are lost in float32, but it is not zero."""
    draw = np.random.default_rng(1).standard_normal
    weight, exact = draw(50), size * draw(50)

    def one(name, precision, variant=None, noise=1e-7):
        taps = {"gradients/a.weight": weight, "gradients/a.bias": exact + noise * draw(50)}
        manifest = {"producer": {"name": name}, "precision": precision, "subject": {}}
        return Trace(Path(f"{name}{variant}{precision}"), manifest | {"variant": variant}, taps)

    found = [one("a", "float32"), one("b", "float32"), one("a", "float64", noise=1e-18)]
    rows = compare([*found, one("a", "float32", "ulp:1"), one("a", "float32", "ulp:2")])
    assert rows[1].verdict == expected and (rows[1].reason == ZERO) == (expected == "equivalent")


def adam(taps, factor=1.0):
    """Steps of Adam from nothing: the sign of each gradient, times the rate."""
    for name in [n for n in taps if n.startswith("gradients/")]:
        gradient = taps[name].astype(np.float64)
        step = -1e-3 * factor * gradient / (np.abs(gradient) + 1e-30)
        taps[name.replace("gradients/", "one update/step/")] = step


@pytest.mark.parametrize(("factor", "expected"), [(1.0, "vacuous"), (10.0, "different")])
def test_the_step_of_adam_along_a_zero_is_noise(factor, expected):
    """Its size still counts."""
    given = traces(Network(2, norm=True), 1, followed=True)
    for t in given:
        adam(t.taps, factor if t.producer("name") == "b" else 1.0)
    rows = {row.tap: row for row in compare(given) if row.precision == "float32"}
    assert rows["step/0.bias"].verdict == rows["step/1.bias"].verdict == expected
    assert rows["step/0.bias"].reason == ZERO_STEP
    assert rows["0.bias"].reason == ZERO
