"""The answer names each planted fault once, and folds what follows from it.

The network is dense, ReLU, dense, a sum outside of modules, batch norm, dense. It is recorded here
as the recorder does it: the whole pass and each module alone, with a float64 reference and
variants. One file, since every test uses this network.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from parity import ulp_variant
from parity.api import compare_traces
from parity.comparison.sketch import sketch
from parity.comparison.trace import Trace
from parity.comparison.verdict import OneSided
from parity.diagnose.answer import answer
from parity.report.answer import answer_lines

RNG = np.random.default_rng(3)
N, D, H, C = 64, 5, 8, 3
WEIGHTS = {
    "one.weight": RNG.standard_normal((H, D)),
    "one.bias": RNG.standard_normal(H),
    "two.weight": RNG.standard_normal((H, H)),
    "two.bias": RNG.standard_normal(H),
    "norm.weight": RNG.uniform(0.5, 1.5, H),
    "norm.bias": RNG.standard_normal(H),
    "norm.running_mean": 0.1 * RNG.standard_normal(H),
    "norm.running_var": RNG.uniform(0.5, 1.5, H),
    "three.weight": RNG.standard_normal((C, H)),
}
WEIGHTS = {name: value.astype(np.float32) for name, value in WEIGHTS.items()}
X = RNG.standard_normal((N, D)).astype(np.float32)
COTANGENT = RNG.standard_normal((N, C))
SGD = {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}
SETTINGS = {"update": SGD}
READS = {
    "one": "inputs/one",
    "relu": "forward/one",
    "two": "forward/relu",
    "norm": "inputs/norm",
    "three": "forward/norm",
}
KINDS = {"one": "linear", "two": "linear", "three": "linear", "relu": "relu", "norm": "batch_norm"}


def operations(faults):
    made = {}
    for module, kind in KINDS.items():
        settings = (
            {"eps": 1e-3 if "eps" in faults else 1e-5, "momentum": 0.1}
            if kind == "batch_norm"
            else {}
        )
        params = [
            name for name in WEIGHTS if name.startswith(f"{module}.") and "running" not in name
        ]
        made[f"forward/{module}"] = {
            "operation": kind,
            "reads": [READS[module]],
            "params": params,
            "settings": settings,
            "module": kind.title(),
            "source": f"lib/{module}.py:1",
        }
    return made


def call(module, w, x, faults, training=False):
    """The output of one module."""
    if module == "relu":
        return np.where(x > 0, x, 0.01 * x) if "leaky" in faults else np.maximum(x, 0)
    if module == "norm":
        mean, var = (
            (x.mean(0), x.var(0)) if training else (w["norm.running_mean"], w["norm.running_var"])
        )
        eps = 1e-3 if "eps" in faults else 1e-5
        return ((x - mean) / np.sqrt(var + eps) * w["norm.weight"] + w["norm.bias"]).astype(x.dtype)
    y = x @ w[f"{module}.weight"].T
    if "odd" in faults and module in ("one", "three"):
        y = y + (0.1 * np.sin(7 * y)).astype(y.dtype)
    with_bias = f"{module}.bias" in w and not (module == "two" and "no bias" in faults)
    return y + w[f"{module}.bias"] if with_bias else y


def statistics(w, x, faults):
    var = x.var(0) * (1 if "biased" in faults else len(x) / (len(x) - 1))
    return {
        "norm.running_mean": w["norm.running_mean"]
        + x.dtype.type(0.1) * (x.mean(0) - w["norm.running_mean"]),
        "norm.running_var": w["norm.running_var"]
        + x.dtype.type(0.1) * (var.astype(x.dtype) - w["norm.running_var"]),
    }


def passed(w, faults, training):
    """The forward taps of a whole pass."""
    prefix = "training " if training else ""
    x = X.astype(w["one.bias"].dtype)
    taps = {f"{prefix}inputs/one": x}
    a = taps[f"{prefix}forward/one"] = call("one", w, x, faults)
    r = taps[f"{prefix}forward/relu"] = call("relu", w, a, faults)
    b = call("two", w, r, faults)
    b = taps[f"{prefix}forward/two"] = b * (1 + np.sin(7 * b) / 9) if "in a pass" in faults else b
    s = b - r if "outside" in faults else b + r
    s = taps[f"{prefix}inputs/norm"] = s * s / 2 if "square" in faults else s
    c = taps[f"{prefix}forward/norm"] = call("norm", w, s, faults, training)
    y = taps[f"{prefix}forward/three"] = call("three", w, c, faults)
    taps[f"{prefix}forward/output"] = y
    return taps


def gradients(w, taps, faults):
    """The gradients of sum(output · cotangent) / N in evaluation mode, by hand."""
    dtype = w["one.bias"].dtype
    g = {"three": (COTANGENT / N).astype(dtype)}
    g["norm"] = g["three"] @ w["three.weight"]
    scale = w["norm.weight"] / np.sqrt(
        w["norm.running_var"] + dtype.type(1e-3 if "eps" in faults else 1e-5)
    )
    g["two"] = g["norm"] * scale.astype(dtype)
    residual = g["two"]
    if "cut" in faults:
        g["two"] = np.zeros_like(residual)
    g["relu"] = g["two"] @ w["two.weight"] + (-residual if "outside" in faults else residual)
    slope = np.where(taps["forward/one"] > 0, 1, 0.01 if "leaky" in faults else 0).astype(dtype)
    g["one"] = g["relu"] * slope * (1.5 if "slope" in faults else 1)
    by = {f"backward/d/{name}": value for name, value in g.items()}
    inputs = {"one": "inputs/one", "two": "forward/relu", "three": "forward/norm"}
    for module, source in inputs.items():
        by[f"gradients/{module}.weight"] = g[module].T @ taps[source]
        if f"{module}.bias" in w:
            by[f"gradients/{module}.bias"] = g[module].sum(0)
    if "frozen" in faults:
        by["gradients/two.weight"] = np.zeros_like(by["gradients/two.weight"])
    return by


def whole(name, w, faults=(), precision="float32", variant=None, dtype=None):
    w = {n: v.astype(dtype or precision) for n, v in w.items()}
    start = {f"parameters/{n}": v.astype(precision) for n, v in WEIGHTS.items()}
    if "unequal" in faults:
        w["two.weight"] = w["two.weight"].T.copy()
        start["parameters/two.weight"] = start["parameters/two.weight"].T.copy()
    taps = passed(w, faults, False)
    taps |= {"losses/loss": np.asarray((taps["forward/output"] * COTANGENT).sum() / N)}
    taps |= gradients(w, taps, faults)
    taps |= passed(w, faults, True)
    moved = statistics(w, taps["training inputs/norm"], faults)
    taps |= {f"training statistics/{n}": v for n, v in moved.items()}
    taps["training/random"] = np.array("no dropout" not in faults)
    decay = 0.001 if "unused" in faults else 0.0
    taps["one update/step/spare"] = -decay * w["one.bias"].astype(np.float64)
    start["parameters/spare"] = WEIGHTS["one.bias"].astype(precision)
    taps = start | {n: v.astype(precision) if v.dtype.kind == "f" else v for n, v in taps.items()}
    taps["one update/step/spare"] = taps["one update/step/spare"].astype(np.float64)
    return traced(name, taps, precision, variant, "pass", faults)


def alone(name, source, w, faults=(), precision="float32", variant=None):
    """Each module fed with the numbers of `source`."""
    w = {n: v.astype(precision) for n, v in w.items()}
    taps = {}
    for module, read in READS.items():
        x = source.taps[read].astype(precision)
        taps[f"isolated forward/{module}"] = call(module, w, x, faults)
    x = source.taps["training inputs/norm"].astype(precision)
    taps["isolated training forward/norm"] = call("norm", w, x, faults, True)
    taps |= {f"isolated statistics/{n}": v for n, v in statistics(w, x, faults).items()}
    taps = {n: v.astype(precision) for n, v in taps.items()}
    return traced(name, taps, precision, variant, "isolated", faults)


def traced(name, taps, precision, variant, kind, faults):
    manifest = {
        "format": "parity-trace/3",
        "producer": {"name": name, "version": "1", "device": "cpu", "threads": 1},
        "precision": precision,
        "variant": variant,
        "case": "",
        "kind": kind,
        "subject": {"weights": "w", "inputs": "x", "settings": SETTINGS},
        "operations": operations(faults),
    }
    return Trace(Path(f"{name}-{kind}-{precision}-{variant}"), manifest, taps)


def asked(*faults, **how):
    """The answer for a candidate with some faults, and all rows."""
    rows, pairs, one_sided = compared(*faults, **how)
    return answer(rows, pairs, one_sided), rows


def compared(*faults, with_alone=True, with_operations=True):
    """The rows of a candidate with some faults, what they were judged by, and one-sided taps."""
    variants = [(f"ulp:{seed}", ulp_variant(WEIGHTS, seed)) for seed in (1, 2, 3)]
    exact = {n: v.astype(np.float64) for n, v in WEIGHTS.items()}
    moved = ulp_variant(exact, 1)
    main = whole("ours", WEIGHTS)
    traces = [main, whole("theirs", WEIGHTS, faults), whole("ours", exact, (), "float64")]
    traces += [
        whole("theirs", exact, faults, "float64"),
        whole("ours", moved, (), "float64", "ulp:1"),
    ]
    for label, w in variants:
        traces += [
            whole("ours", w, (), "float32", label),
            whole("theirs", w, faults, "float32", label),
        ]
    single = [alone("ours", main, WEIGHTS), alone("theirs", main, WEIGHTS, faults)]
    single += [
        alone("ours", main, exact, (), "float64"),
        alone("theirs", main, exact, faults, "float64"),
    ]
    single += [alone("ours", main, moved, (), "float64", "ulp:1")]
    for label, w in variants:
        single += [
            alone(who, main, w, f, "float32", label)
            for who, f in (("ours", ()), ("theirs", faults))
        ]
    rows, pairs, one_sided = [], [], OneSided()
    for group in (traces, single) if with_alone else (traces,):
        if not with_operations:
            for trace in group:
                del trace.manifest["operations"]
        found = compare_traces(group)
        rows += found.rows
        pairs += found.pairs
        one_sided += found.one_sided
    return rows, pairs, one_sided


def summary(result):
    return [(found.kind, found.code, found.places[0]) for found in result.findings]


def test_right_code_has_no_finding():
    result, rows = asked()
    assert {row.verdict for row in rows} <= {"equivalent", "vacuous"}
    assert result.findings == () and result.open == () and result.begins is None


@pytest.mark.parametrize(
    ("fault", "kind", "code", "place"),
    [
        ("leaky", "another function", "leaky relu", "relu"),
        ("no bias", "another function", "no bias", "two"),
        ("eps", "another function", "eps", "norm"),
        ("biased", "another function", "biased", "norm.running_var"),
        ("frozen", "other state", "frozen", "two.weight"),
        ("cut", "other state", "detached", "two"),
        ("no dropout", "other state", "no dropout", "random"),
        ("unused", "other state", "unused decay", "spare"),
        ("unequal", "other state", "state", "two.weight"),
        ("slope", "another function", "scaled", "one"),
    ],
)
def test_one_fault_is_one_finding(fault, kind, code, place):
    result, rows = asked(fault)
    assert summary(result) == [(kind, code, place)]
    different = {f"{row.stage}/{row.tap}" for row in rows if row.verdict == "different"}
    assert set(result.findings[0].explained) >= different and different
    assert result.verdict == "different" and result.open == ()


@pytest.mark.parametrize("fault", ["leaky", "no bias", "eps", "frozen", "cut", "unused", "outside"])
def test_sketches_of_the_evidence_change_no_finding(monkeypatch, fault):
    """`parity run` stores large arrays whole in two recordings alone: those of the pair."""
    expected, rows = asked(fault)

    def sketched(name, taps, precision, variant, kind, faults):
        trace = plain(name, taps, precision, variant, kind, faults)
        if precision == "float32" and not variant:
            return trace
        large = {n: sketch(v) for n, v in taps.items() if v.dtype.kind == "f" and v.size > 4}
        return replace(trace, taps=taps | large)

    plain = traced
    monkeypatch.setitem(globals(), "traced", sketched)
    result, again = asked(fault)
    assert summary(result) == summary(expected) != []
    assert [row.verdict for row in again] == [row.verdict for row in rows]


def test_a_sum_outside_of_modules():
    result, _ = asked("outside")
    (found,) = result.findings
    assert (found.code, found.shown_by) == ("sign", "recomputing")
    place = "between two and norm, outside of modules, the candidate computes"
    assert f"{place} two minus relu, instead of the sum" in found.text
    assert result.begins.tap == "norm"


def test_another_function_outside_of_modules():
    result, _ = asked("square")
    (found,) = result.findings
    assert found.code == "sum" and "not the sum of relu and two" in found.text


def test_a_sum_is_found_behind_another_fault():
    result, _ = asked("leaky", "outside", "biased")
    assert {code for _, code, _ in summary(result)} == {"leaky relu", "sign", "biased"}


def test_two_faults_are_two_findings():
    result, _ = asked("leaky", "biased")
    assert {code for _, code, _ in summary(result)} == {"leaky relu", "biased"}
    by_code = {found.code: found for found in result.findings}
    assert "forward/output" in by_code["leaky relu"].explained
    assert "training statistics/norm.running_var" in by_code["biased"].explained


def test_three_faults_are_three_findings_and_fold_the_rest():
    result, rows = asked("leaky", "eps", "frozen")
    assert {code for _, code, _ in summary(result)} == {"leaky relu", "eps", "frozen"}
    explained = [name for found in result.findings for name in found.explained]
    different = {f"{row.stage}/{row.tap}" for row in rows if row.verdict == "different"}
    assert different <= set(explained) and len(explained) == len(set(explained))


def test_without_modules_alone_the_first_place_is_found():
    result, _ = asked("no bias", with_alone=False)
    assert summary(result) == [("another function", "no bias", "two")]


def test_without_operations_the_first_tap_is_named():
    result, _ = asked("no bias", with_alone=False, with_operations=False)
    assert result.findings[0].place == "forward/two" and len(result.findings) == 1


def test_unknown_causes_in_two_classes_are_two_findings():
    result, _ = asked("odd")
    assert summary(result) == [("another function", "", "one"), ("another function", "", "three")]
    assert [found.source for found in result.findings] == ["lib/one.py:1", "lib/three.py:1"]


def test_a_module_whose_input_agrees_is_the_place_though_it_agrees_alone():
    result, _ = asked("in a pass")
    assert summary(result) == [("another function", "", "two")]
    assert result.findings[0].text.startswith("the output has other numbers")


def test_it_begins_at_the_first_place_of_the_computation():
    _, rows = asked("square")
    bad = [row for row in rows if row.verdict == "different"]
    late = [row for row in bad if row.precision == "float32" and row.stage == "backward"]
    early = [row for row in bad if row.precision == "float64" and row.stage == "inputs"]
    begins = answer([*late, *early], []).begins
    assert begins and (begins.stage, begins.precision) == ("inputs", "float64")
    begins = answer([*early, *bad], []).begins
    assert begins and (begins.stage, begins.precision) == ("inputs", "float32")


def test_settings_that_differ_support_a_finding_or_are_one():
    result, _ = asked("eps")
    assert "the settings say so too" in result.findings[0].text
    assert result.findings[0].source == "lib/norm.py:1"


def test_noise_is_no_other_function():
    """The candidate computes with eleven digits less than float64, and says so in its variants."""
    result, rows = asked()
    worse = [
        row.__class__(**{**row.__dict__, "verdict": "undecided", "reason": "noise"})
        if row.stage == "gradients"
        else row
        for row in rows
    ]
    result = answer(worse, [], OneSided())
    assert result.findings == () and len(result.open) > 3 and result.verdict == "undecided"


@pytest.mark.parametrize(("verdict", "findings"), [("less precise", 2), ("different", 1)])
def test_a_finding_explains_no_worse_verdict(verdict, findings):
    rows, pairs, _ = compared()
    changed = {("isolated forward", "relu"): verdict, ("forward", "two"): "different"}
    rows = [
        replace(row, verdict=changed.get((row.stage, row.tap), row.verdict), error=1e-5)
        if row.precision == "float32"
        else row
        for row in rows
    ]
    assert len(answer(rows, pairs).findings) == findings


def test_float32_alone_explains_no_float64():
    rows, pairs, _ = compared()
    changed = {("isolated forward", "relu", "float32"), ("forward", "two", "float64")}
    rows = [
        replace(row, verdict="different", error=0.1)
        if (row.stage, row.tap, row.precision) in changed
        else row
        for row in rows
    ]
    assert [f.precision for f in answer(rows, pairs).findings] == ["float32", "float64"]


def test_gradients_that_only_the_baseline_has_are_frozen_parameters():
    _, rows = asked()
    only = OneSided(("gradients/one.bias", "gradients/two.weight", "forward/drop"), ())
    (found,) = answer(rows, [], only).findings
    assert (found.code, found.kind, found.places) == (
        "frozen",
        "other state",
        ("one.bias", "two.weight"),
    )


def test_the_answer_fits_on_one_screen():
    result, rows = asked("leaky", "eps", "frozen", "biased", "no dropout", "unused")
    lines = answer_lines(result, rows, OneSided(("forward/drop",), ()))
    assert len(lines) <= 25 and max(map(len, lines)) <= 220
    assert lines[-1].startswith("verdict: different, begins at forward/relu")
    assert any(line.startswith("running statistics:") for line in lines)
    assert "only in the baseline: forward/drop" in lines
    text = "\n".join(lines)
    assert "the running variance follows the biased variance" in text
    assert "further taps differ" in text and "the relative error is" in text
