"""What is unlike in two sets of weights, and weights under other names."""

import foreign_forms
import numpy as np
import pytest

from parity.errors import ParityError
from parity.matching.declared import Declared
from parity.matching.named import as_named
from parity.matching.weights import place_weights, summary, unequal

RNG = np.random.default_rng(5)
WEIGHTS = {
    "conv1.weight": RNG.standard_normal((6, 3, 5, 4)).astype(np.float32),
    "fc.weight": RNG.standard_normal((8, 6)).astype(np.float32),
    "fc.bias": RNG.standard_normal(8).astype(np.float32),
    "norm1.weight": RNG.standard_normal(6).astype(np.float32),
    "norm2.weight": RNG.standard_normal(6).astype(np.float32),
}
FAULTS = {
    "(in, out)": ("fc.weight", lambda w: w.T, "layout"),
    "reversed along axis 1, as if RGB were BGR": ("conv1.weight", lambda w: w[:, ::-1], "reversed"),
    "reversed along axis 0": ("fc.bias", lambda w: w[::-1], "reversed"),
    "1.5 times as large": ("conv1.weight", lambda w: w * np.float32(1.5), "scaled"),
    "-1 times as large": ("fc.weight", np.negative, "scaled"),
    "all zero": ("norm1.weight", np.zeros_like, "zeros"),
    "1 everywhere": ("norm1.weight", np.ones_like, "constant"),
    "has the numbers of norm2.weight": (
        "norm1.weight",
        lambda w: WEIGHTS["norm2.weight"],
        "exchanged",
    ),
    "has shape (8, 5)": ("fc.weight", lambda w: w[:, :5], "shape"),
}


def test_equal_weights_have_no_problem():
    assert unequal(WEIGHTS, dict(reversed(WEIGHTS.items()))) == []
    assert summary([], 5) == "5 of 5 parameters equal"


@pytest.mark.parametrize("sentence", FAULTS)
def test_every_fault_has_its_name(sentence):
    name, function, kind = FAULTS[sentence]
    (problem,) = unequal(WEIGHTS, WEIGHTS | {name: function(WEIGHTS[name])})
    assert (problem.name, problem.kind) == (name, kind)
    assert sentence in str(problem) and str(problem).startswith(f"{name} {WEIGHTS[name].shape}")


def test_only_the_channels_of_a_kernel_can_be_colours():
    flipped = WEIGHTS | {"conv1.weight": WEIGHTS["conv1.weight"][:, :, ::-1]}
    (problem,) = unequal(WEIGHTS, flipped)
    assert problem.sentence == "reversed along axis 2"


def test_one_number_that_differs_is_told_with_its_place():
    other = WEIGHTS["fc.weight"].copy()
    other[5, 2] += 0.25
    (problem,) = unequal(WEIGHTS, WEIGHTS | {"fc.weight": other})
    assert problem.kind == "numbers"
    assert "1 of 48 numbers differ; greatest difference 0.25 at (5, 2)" in problem.sentence
    other[0, 0] = np.nan
    assert "at (0, 0)" in unequal(WEIGHTS, WEIGHTS | {"fc.weight": other})[0].sentence


def test_a_small_error_is_no_scale():
    other = WEIGHTS["fc.weight"] * np.float32(1 + 1e-6)
    assert unequal(WEIGHTS, WEIGHTS | {"fc.weight": other})[0].kind == "numbers"


def test_missing_and_extra():
    left = {name: value for name, value in WEIGHTS.items() if name != "fc.bias"}
    problems = unequal(WEIGHTS, left | {"head.scale_factor": np.ones(2)})
    assert [(p.name, p.kind) for p in problems] == [
        ("fc.bias", "missing"),
        ("head.scale_factor", "extra"),
    ]
    assert summary(problems, 5).startswith("4 of 5 parameters equal; fc.bias (8,): ")


def test_two_exchanged_parameters_are_both_named():
    swapped = WEIGHTS | {
        "norm1.weight": WEIGHTS["norm2.weight"],
        "norm2.weight": WEIGHTS["norm1.weight"],
    }
    assert [p.kind for p in unequal(WEIGHTS, swapped)] == ["exchanged", "exchanged"]


OWN = foreign_forms.canonical()
GOOGLE = foreign_forms.google(OWN)
TIMM = foreign_forms.timm(OWN)
FLAX = {
    r".*/(Dense_\d|query|key|value|out)/kernel|head/kernel": "(in, out)",
    "embedding/kernel": "HWIO",
    r".*/(query|key|value)/bias": "reshape",
}
THIRDS = {
    rf"(.+)\.{name}\.(.+)": rf"\1.qkv.\2[{number}/3]"
    for number, name in enumerate(("query", "key", "value"))
}
JOINED = {r"(.+)\.qkv\.(.+)": r"\1.query.\2 + \1.key.\2 + \1.value.\2"}


@pytest.mark.parametrize(
    "case",
    [
        (OWN, GOOGLE, Declared(layouts=FLAX)),
        (OWN, TIMM, Declared(JOINED)),
        (TIMM, OWN, Declared(THIRDS)),
    ],
    ids=["flax", "three to one", "one to three"],
)
def test_weights_are_placed_where_layouts_and_parts_are_declared(case):
    weights, expected, declared = case
    placed = place_weights(weights, as_named(expected, known=False), declared).require("candidate")
    assert placed.keys() == expected.keys()
    assert all(np.array_equal(placed[name], expected[name]) for name in expected)


def test_nothing_is_transposed_in_silence():
    found = place_weights(OWN, as_named(GOOGLE, known=False))
    assert "head/kernel" not in found.arrays
    assert any(
        "head.weight: expected shape (5, 12), found head/kernel (12, 5); add the line "
        "`head/kernel: (in, out)`" in problem
        for problem in found.problems
    )
    with pytest.raises(ParityError, match="candidate: 20 of 40 parameters have a place; "):
        found.require("candidate")


def test_a_fused_module_is_told_with_the_lines_that_declare_it():
    found = place_weights(OWN, as_named(TIMM, known=False))
    assert len(found.problems) == 2  # weights and biases, not once for each block
    line = found.problems[0].rpartition("add to names: ")[2].strip("`")
    pattern, _, replacement = line.partition(": ")
    bias = found.problems[1].rpartition("add to names: ")[2].strip("`")
    names = {pattern: replacement, bias.partition(": ")[0]: bias.partition(": ")[2]}
    assert not place_weights(OWN, as_named(TIMM, known=False), Declared(names)).problems


def test_what_has_no_partner_is_listed():
    shapes = {n: v for n, v in WEIGHTS.items() if n != "fc.bias"} | {"extra.table": np.ones((9, 9))}
    found = place_weights(WEIGHTS, as_named(shapes, known=False))
    assert [problem.partition(" ")[0] for problem in found.problems] == ["fc.bias", "extra.table"]
    counted = WEIGHTS | {"norm1.num_batches_tracked": np.array(0)}
    found = place_weights(
        counted, as_named(WEIGHTS, known=False), optional=("norm1.num_batches_tracked",)
    )
    assert not found.problems and len(found.arrays) == len(WEIGHTS)


def test_parts_that_cannot_be_taken_are_refused():
    with pytest.raises(ParityError, match="the baseline has no fc.b"):
        place_weights(WEIGHTS, as_named(WEIGHTS, False), Declared({"fc.bias": "fc.b + fc.c"}))
    with pytest.raises(ParityError, match=r"cannot take part 0 of 3 .* of shape \(8,\)"):
        place_weights(WEIGHTS, as_named(WEIGHTS, False), Declared({"fc.bias": "fc.bias[0/3]"}))
