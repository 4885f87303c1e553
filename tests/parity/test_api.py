"""The tools on a pair of models from outside this project: two ways to write a small network in
NumPy, which differ in the order of their sums.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from parity import (
    compare,
    compare_files,
    read_declared,
    read_trace,
    record_taps,
    ulp_variant,
    write_trace,
)
from parity.api import compare_traces, explained
from parity.comparison.verdict import OneSided, worst
from parity.errors import ParityError
from parity.report.answer import answer_lines
from parity.suite import run as suite_run
from transfg_core.models.rows import KEY_BIASES

ROOT = Path(__file__).resolve().parents[2]
SIZES = {"one": (37, 23), "two": (23, 5), "bias": (5,)}
ZEROS = {"gradients/shift": "gradients/bias"}
FAULT_AT = {"scale": "forward/hidden", "loss": "losses/loss", "sum": "gradients/bias"}


def draw(rows=11):
    rng = np.random.default_rng(5)
    weights = {name: 0.2 * rng.standard_normal(size) for name, size in SIZES.items()}
    weights = {name: value.astype(np.float32) for name, value in weights.items()}
    images = rng.standard_normal((rows, SIZES["one"][0])).astype(np.float32)
    return weights, {"x": images, "labels": rng.integers(0, 5, rows)}


def product(a, b, by_terms):
    """a @ b, by the library or one term after another."""
    if not by_terms:
        return a @ b
    return sum(a[:, k : k + 1] * b[k] for k in reversed(range(a.shape[1])))


def network(weights, inputs, dtype=np.float32, by_terms=False, fault=""):
    """Every tap of a forward and backward pass."""
    w = {name: value.astype(dtype) for name, value in weights.items()}
    x, labels = inputs["x"].astype(dtype), inputs["labels"]
    a = np.tanh(product(x, w["one"], by_terms))
    if fault == "scale":
        a = a * dtype(1 + 1e-5)
    y = product(a, w["two"], by_terms) + w["bias"]
    z = np.exp(y - y.max(axis=1, keepdims=True))
    p = z / z.sum(axis=1, keepdims=True)
    log_p = np.log(p[np.arange(len(p)), labels])
    d = (p - np.eye(5, dtype=dtype)[labels]) / dtype(len(p))
    return {
        "forward/hidden": a,
        "forward/logits": y,
        "forward/prediction": y.argmax(axis=1),
        "losses/loss": -(log_p.sum() if fault == "loss" else log_p.mean()),
        "gradients/two": product(a.T.copy(), d, by_terms),
        "gradients/bias": d.sum(axis=0) * dtype(len(d) if fault == "sum" else 1),
        "gradients/shift": d.sum(),  # zero: softmax is invariant to a shift of all logits
    }


class Recorder:
    """Writes traces of the two models, `ours` and `theirs`, into a folder."""

    def __init__(self, folder, rows=11, **options):
        self.folder, (self.weights, self.inputs), self.options = folder, draw(rows), options

    def __call__(self, name, who="ours", precision="float32", ulp=0, fault="", **changes):
        dtype = np.dtype(precision).type
        start = {key: value.astype(dtype) for key, value in self.weights.items()}
        start = ulp_variant(start, ulp) if ulp else start
        facts = {
            "weights": self.weights,
            "inputs": self.inputs,
            "settings": {"layers": 2},
            "framework": who,
            "version": "1.0",
            "precision": precision,
            "device": "cpu",
            "threads": 1,
            "variant": f"ulp:{ulp}" if ulp else None,
            "zeros": ZEROS,
        }
        taps = network(start, self.inputs, dtype, who == "theirs", fault)
        taps = changes.pop("change", lambda taps: taps)(taps)
        if "gradients/two" in taps:  # `theirs` adds its terms one by one
            facts["terms"] = {"gradients/two": len(self.inputs["x"])}
        record_taps(self.folder / name, taps, **(facts | self.options | changes))
        return self.folder / name


@pytest.fixture
def write(tmp_path):
    return Recorder(tmp_path)


@pytest.fixture
def files(write):
    """The pair, the reference and variants, all without faults."""
    return [
        write("a.npz"),
        write("b.npz", "theirs"),
        write("a64.npz", precision="float64"),
        *[write(f"a{seed}.npz", ulp=seed) for seed in (1, 2, 3)],
    ]


def refusal(paths, **options):
    with pytest.raises(ParityError) as caught:
        compare(paths, **options)
    return str(caught.value)


def begins(paths):
    """The last line of the answer, if it says where a difference begins; else nothing."""
    comparison = compare_traces(paths)
    line = answer_lines(explained(comparison), comparison.rows)[-1]
    return line if "begins at" in line else ""


def verdicts(rows):
    return {f"{row.stage}/{row.tap}": row.verdict for row in rows}


# --- verdicts


def test_two_right_models_are_equivalent(files):
    rows = compare(files)
    assert {row.verdict for row in rows} == {"equivalent"} and len(rows) == 7
    by_tap = {row.tap: row for row in rows}
    assert by_tap["logits"].error > 0 and by_tap["logits"].pair == "theirs : ours"
    assert by_tap["shift"].reason == "zero by structure"
    assert begins(files) == ""


@pytest.mark.parametrize("fault", FAULT_AT)
def test_a_fault_is_found_where_it_begins(files, write, fault):
    files[1] = write("bad.npz", "theirs", fault=fault)
    rows = compare(files)
    begin = next(row for row in rows if row.verdict == "different")
    assert f"{begin.stage}/{begin.tap}" == FAULT_AT[fault]
    assert begins(files).startswith(
        f"verdict: different, begins at {FAULT_AT[fault]} in float32: error"
    )


def test_a_gradient_that_should_be_zero_and_is_not(files, write):
    def leak(taps):
        return taps | {"gradients/shift": np.float32(1e-3)}

    files[1] = write("bad.npz", "theirs", change=leak)
    assert [row.tap for row in compare(files) if row.verdict != "equivalent"] == ["shift"]


def test_the_order_of_the_evidence_does_not_matter(files):
    assert compare(files) == compare([*files[:2], *files[:1:-1]])


def test_traces_may_be_given_as_read(files):
    assert compare([read_trace(path) for path in files]) == compare(files)


def test_variants_belong_to_who_computed_them(files, write):
    assert all(row.candidate_noise == 0 for row in compare(files))
    rows = compare([*files, write("b1.npz", "theirs", ulp=1)])
    assert {row.tap: row.candidate_noise > 0 for row in rows}["logits"]


def test_two_versions_of_one_framework_are_two_producers(files, write):
    files[1] = write("new.npz", version="2.0")
    rows = compare([*files, write("new1.npz", version="2.0", ulp=1)])
    assert worst([row.verdict for row in rows]) == "equivalent" and any(
        row.candidate_noise for row in rows
    )


def test_without_evidence_small_differences_are_undecided(files, write):
    assert worst([row.verdict for row in compare([files[0], write("copy.npz", "theirs")])]) != (
        "different"
    )
    scaled = write("scaled.npz", "theirs", fault="scale")
    found = verdicts(compare([files[0], scaled]))
    assert found["forward/hidden"] == "undecided"
    wrong = write("wrong.npz", "theirs", fault="loss")
    assert verdicts(compare([files[0], wrong]))["losses/loss"] == "different"


def test_two_traces_alone_cannot_tell_a_zero_from_noise(write):
    """A bias before a batch norm has a gradient of noise; float64 shows that it is zero."""

    def noise(size):
        def change(taps):
            rng = np.random.default_rng(int(1e9 * size))
            taps = {name: tap for name, tap in taps.items() if name.startswith("forward")}
            bias = size * rng.standard_normal(4)
            return taps | {
                "gradients/conv.weight": np.linspace(1, 2, 1000, dtype=np.float32),
                "gradients/conv.bias": bias.astype(np.float32),
                "forward/conv.bias": bias.astype(np.float32),
                "one update/step/conv.weight": bias.astype(np.float32),
                "one update/step/conv.bias": bias.astype(np.float32),
            }

        return change

    ours = write("ours.npz", change=noise(1e-6), zeros={})
    for size, said in ((2e-6, "undecided"), (2e-3, "different")):  # norms 4e-6 and 4e-3 beside 48
        found = verdicts(
            compare([ours, write("other.npz", "theirs", change=noise(size), zeros={})])
        )
        assert found["gradients/conv.bias"] == found["one update/step/conv.bias"] == said
        for tap in ("forward/conv.bias", "one update/step/conv.weight"):
            assert found[tap] == "different"  # only gradients are zero by structure
    swapped = write("first.npz", change=noise(2e-3), zeros={})
    small = write("second.npz", "theirs", change=noise(1e-6), zeros={})
    assert verdicts(compare([swapped, small]))["gradients/conv.bias"] == "different"


def test_float64_shows_what_float32_hides(files, write):
    def nearly(taps):
        return taps | {"forward/hidden": taps["forward/hidden"] * (1 + 1e-10)}

    files.append(write("a64-1.npz", precision="float64", ulp=1))
    right, wrong = (
        write(f"b64{i}.npz", "theirs", "float64", change=change)
        for i, change in enumerate((dict, nearly))
    )
    rows = compare([*files, right])
    assert {row.precision for row in rows} == {"float32", "float64"} and len(rows) == 14
    assert worst([row.verdict for row in rows]) == "equivalent"
    bad = [row for row in compare([*files, wrong]) if row.verdict != "equivalent"]
    assert [(row.precision, row.tap) for row in bad] == [("float64", "hidden")]


def test_nan_is_different_also_where_both_have_it(files, write):
    def broken(taps):
        taps["forward/logits"][0, 0] = np.nan
        return taps

    files[1] = write("nan.npz", "theirs", change=broken)
    assert begins(files).startswith(
        "verdict: different, begins at forward/logits in float32: 1 elements are not finite"
    )
    files[0] = write("nan-too.npz", change=broken)
    assert verdicts(compare(files))["forward/logits"] == "different"


def test_a_tap_that_only_one_trace_has_is_no_row(files, write, tmp_path, capsys):
    def less(taps):
        return {name: value for name, value in taps.items() if name != "forward/logits"}

    files[1] = write("less.npz", "theirs", change=less)
    found = compare_traces(files)
    assert "forward/logits" not in verdicts(found.rows) and found.verdict == "equivalent"
    assert found.one_sided == OneSided(("forward/logits",), ())
    assert compare_files(files, out=tmp_path / "report") == 0
    assert "only in ours: forward/logits" in capsys.readouterr().out
    record = json.loads((tmp_path / "report/parity.json").read_text())
    assert record["one_sided"] == {
        "baseline": ["forward/logits"],
        "candidate": [],
        "counters": [],
    }
    assert "Taps of one side" in (tmp_path / "report/report.html").read_text()


def test_what_is_only_carried_along_is_not_judged(files, write):
    def carrying(value):
        return lambda taps: taps | {"state/rng": np.full(3, value)}

    files[:2] = (
        write(f"state{i}.npz", who, change=carrying(i)) for i, who in enumerate(("ours", "theirs"))
    )
    rows = compare(files)
    assert {row.verdict for row in rows} == {"equivalent"} and len(rows) == 7


def test_no_other_stage_is_left_out(files, write):
    """Also a stage `parts`, a name that this project's own recordings use."""

    def parts(value):
        return lambda taps: taps | {"parts/head": np.full(3, value)}

    files[:2] = (
        write(f"parts{i}.npz", who, change=parts(float(i)))
        for i, who in enumerate(("ours", "theirs"), 1)
    )
    assert [row.tap for row in compare(files[:2]) if row.verdict == "different"] == ["head"]
    assert "undecided" in verdicts(compare(files)).values()  # the reference does not have it


@pytest.mark.parametrize("fault", ["", *FAULT_AT])
def test_sketches_give_the_same_verdicts(tmp_path, fault):
    """Arrays of 92,000 and 20,000 numbers, stored whole or as sketches of 4,096 numbers."""
    found = []
    for name, above in (("whole", None), ("sketches", 5000)):
        folder = tmp_path / name
        folder.mkdir()
        write = Recorder(folder, rows=4000, sketch_above=above)
        paths = [
            write("a.npz"),
            write("b.npz", "theirs", fault=fault),
            write("a64.npz", precision="float64"),
            *[write(f"a{seed}.npz", ulp=seed) for seed in (1, 2, 3)],
        ]
        found.append(compare(paths))
    assert isinstance(read_trace(paths[0]).taps["forward/hidden"].buckets, np.ndarray)
    assert paths[0].stat().st_size < 0.25 * (tmp_path / "whole/a.npz").stat().st_size
    whole, sketched = found
    assert verdicts(whole) == verdicts(sketched)
    for one, other in zip(whole, sketched, strict=True):
        assert one.error == pytest.approx(other.error, rel=0.05)
    assert ("different" in verdicts(whole).values()) == bool(fault)


# --- roles that are missing or taken


def test_pairs_that_are_none(files, write):
    a, b, exact, variant, *_ = files
    assert "two traces or more, found 1" in refusal([a])
    assert "given twice" in refusal([a, a])
    assert "given twice" in refusal([a, b, variant, variant])
    assert "a variant (ulp:1) among the first two" in refusal([a, variant])
    assert "is in float32" in refusal([a, exact])


def test_traces_without_a_role(files, write):
    a, b, exact, *_ = files
    again = write("again.npz")
    assert "ours float32 has no part in comparing ours float32" in refusal([a, b, again])
    second = write("second.npz", precision="float64")
    assert "two float64 references; give one" in refusal([a, b, exact, second])
    third = write("third.npz", "somebody", ulp=1)
    assert "a variant by somebody, 1.0, cpu, but" in refusal([a, b, third])
    other = write("other.npz", precision="float64", version="0.9")
    assert "a reference by ours, 0.9, but" in refusal([a, b, other])
    moved = write("moved.npz", ulp=1, device="gpu")
    assert "a variant by ours, 1.0, gpu, but" in refusal([a, b, moved])
    assert compare([a, b, write("gpu64.npz", precision="float64", device="gpu")])
    theirs = write("b64.npz", "theirs", "float64")
    assert "a float64 trace of ours is missing" in refusal([a, b, theirs])
    variant = write("v64.npz", precision="float64", ulp=1)
    assert "a float64 trace of theirs is missing" in refusal([a, b, exact, variant])


@pytest.mark.parametrize("subject", ["weights", "inputs", "settings"])
def test_mixtures_are_refused(files, write, subject):
    changed = {"weights": ulp_variant(write.weights, 9), "inputs": {"x": np.ones(3)}}
    changed["settings"] = {"layers": 3}
    odd = {subject: changed[subject]}
    text = refusal([files[0], write("odd.npz", "theirs", **odd)])
    assert "not of one computation" in text and subject in text
    text = refusal([*files, write("odd4.npz", ulp=4, **odd)])
    assert "odd4.npz" in text and subject in text


def test_kinds_of_recordings_are_not_mixed(files, tmp_path):
    trace = read_trace(files[1])
    isolated = tmp_path / "isolated.npz"
    write_trace(isolated, trace.arrays("forward"), trace.manifest | {"kind": "isolated"})
    assert "different kinds" in refusal([files[0], isolated])


# --- names


def foreign(taps):
    """Other names for the same taps."""
    words = {"forward/": "out/layer.", "gradients/": "grads/d_"}
    for old, new in words.items():
        taps = {name.replace(old, new): value for name, value in taps.items()}
    return taps


def test_names_are_mapped_by_patterns(files, write, tmp_path):
    files[1] = write("b-names.npz", "theirs", change=foreign, zeros={})
    rows = compare(files)
    assert [row.tap for row in rows] == ["loss"]
    path = tmp_path / "names.yaml"
    path.write_text("out/layer\\.(.+): forward/\\1\ngrads/d_(.+): gradients/\\1\n")
    variant = write("b1.npz", "theirs", ulp=1, change=foreign, zeros={})
    rows = compare([*files, variant], read_declared(path))
    assert {row.verdict for row in rows} == {"equivalent"} and len(rows) == 7
    assert {row.tap: row.candidate_noise > 0 for row in rows}["logits"]


@pytest.mark.parametrize(
    "names, problem",
    [
        ({"forward/nothing": "forward/x"}, "fits none of its 7 taps"),
        ({"forward/.*": "forward/x"}, "two taps would be called forward/x"),
        ({"forward/(hidden": "x"}, "missing )"),
        ({"forward/hidden": r"forward/\1"}, "invalid group reference"),
    ],
)
def test_mappings_that_do_not_fit(files, names, problem):
    assert problem in refusal(files, mapping=names)


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: 1\n", "a: [b]\n", "a: {b: c}\n", "{", ""])
def test_files_that_hold_no_names(tmp_path, text):
    path = tmp_path / "names.yaml"
    path.write_text(text)
    with pytest.raises(ParityError, match=r"names\.yaml: expected"):
        read_declared(path)
    with pytest.raises(ParityError, match=r"absent\.yaml: expected"):
        read_declared(tmp_path / "absent.yaml")


def test_nothing_in_common(files, write):
    odd = write("odd.npz", "theirs", change=lambda taps: {"x/y": taps["losses/loss"]}, zeros={})
    assert "no computed tap in common" in refusal([files[0], odd])
    same = {"parameters/dense": np.ones((2, 3), np.float32)}
    pair = [
        write(f"{name}.npz", name, change=lambda _, own=own: same | own, zeros={})
        for name, own in (
            ("one", {"forward/a": np.ones(5, np.float32)}),
            ("other", {"forward/z": np.ones((6, 2), np.float32)}),
        )
    ]
    assert "the first has forward/a, the second forward/z" in refusal(pair)


# --- recording


def test_one_unit_in_the_last_place():
    weights, _ = draw()
    weights |= {"count": np.arange(3), "zero": np.zeros(4, np.float32), "flag": np.array([True])}
    moved = ulp_variant(weights, 1)
    assert list(moved) == list(weights)
    for name in SIZES:
        step = np.abs(moved[name].view(np.int32) - weights[name].view(np.int32))
        assert moved[name].dtype == np.float32 and (step == 1).all()
        up = (moved[name] > weights[name]).mean()
        assert name == "bias" or 0.3 < up < 0.7
    assert (moved["count"] == weights["count"]).all() and moved["flag"].all()
    assert (np.abs(moved["zero"]) == np.finfo(np.float32).smallest_subnormal).all()
    assert (ulp_variant(weights, 2)["one"] != moved["one"]).any()
    backwards = ulp_variant(dict(reversed(weights.items())), 1)
    assert all((backwards[name] == moved[name]).all() for name in weights)
    exact = weights["one"].astype(np.float64)
    assert 0 < np.abs(ulp_variant({"one": exact}, 1)["one"] - exact).max() < 1e-15


@pytest.mark.parametrize(
    "changes, problem",
    [
        (
            {"precision": "float32", "change": lambda t: {"hidden": t["forward/hidden"]}},
            "stage/tap",
        ),
        ({"change": lambda t: t | {"forward/a>b": np.ones(2)}}, "stage/tap"),
        ({"change": lambda t: t | {"forward/word": np.array(["a"])}}, "expected numbers"),
        ({"zeros": {"gradients/shift": "gradients/absent"}}, "no tap gradients/absent"),
        ({"zeros": {"gradients/absent": "gradients/bias"}}, "no tap gradients/absent"),
        ({"kinks": {"choices/x": {"input": "forward/hidden"}}}, "kinks: there is no tap choices/x"),
        ({"kinks": {"forward/prediction": {"input": "x"}}}, "kinks: there is no tap x"),
        ({"operations": {"forward/x": {}}}, "operations: there is no tap forward/x"),
    ],
)
def test_recordings_that_are_refused(write, changes, problem):
    with pytest.raises(ParityError, match=problem):
        write("x.npz", **changes)
    assert list(write.folder.iterdir()) == []


def test_float64_that_is_none(write):
    def rounded(taps):
        return taps | {"forward/logits": taps["forward/logits"].astype(np.float32)}

    with pytest.raises(ParityError, match="precision float64, but tap forward/logits is float32"):
        write("x.npz", precision="float64", change=rounded)


def test_an_unknown_precision_or_folder(write, tmp_path):
    weights, inputs = draw()
    facts = {"framework": "x", "version": "1", "device": "cpu", "threads": 1, "settings": {}}
    facts |= {"weights": weights, "inputs": inputs}
    with pytest.raises(ParityError, match="precision 'fp32': expected one of float64, float32"):
        record_taps(tmp_path / "x.npz", {"a/b": np.ones(2)}, precision="fp32", **facts)
    with pytest.raises(ParityError, match="no such folder"):
        record_taps(tmp_path / "no/x.npz", {"a/b": np.ones(2)}, precision="float32", **facts)


# --- files


def test_damaged_files_are_refused(files, tmp_path):
    good = files[1].read_bytes()
    bad = tmp_path / "bad.npz"
    for content in (b"", b"text", good[:100], good[: len(good) // 2], good[:-1], good[200:]):
        bad.write_bytes(content)
        assert "record it again" in refusal([files[0], bad])
    np.savez(bad, x=np.ones(3))
    assert "no trace: it has no manifest.json" in refusal([files[0], bad])
    np.savez(bad, x=np.array([{}]))
    assert "record it again" in refusal([files[0], bad])
    assert "no such trace" in refusal([files[0], tmp_path / "absent.npz"])
    assert "found a folder" in refusal([files[0], tmp_path])


def rewrite(path, change):
    """The same file with another manifest."""
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    manifest = json.loads(arrays["manifest.json"].tobytes())
    change(manifest)
    arrays["manifest.json"] = np.frombuffer(json.dumps(manifest).encode(), np.uint8)
    np.savez(path, **arrays)


def test_other_versions_and_shortened_manifests_are_refused(files):
    rewrite(files[1], lambda manifest: manifest.update(format="parity-trace/4"))
    assert "format 'parity-trace/4', but this program reads 'parity-trace/1', " in refusal(files)
    rewrite(files[1], lambda manifest: manifest.update(format="parity-trace/2"))
    assert compare(files)
    rewrite(files[1], lambda manifest: manifest["taps"]["forward/logits"].update(shape=[5, 11]))
    assert "tap forward/logits: the manifest says" in refusal(files)
    rewrite(files[1], lambda manifest: manifest.pop("precision"))
    assert "the manifest lacks 'precision'" in refusal(files)


def test_no_flipped_bit_changes_what_is_read(tmp_path):
    """Each byte in turn: the file is refused, or nothing reads the byte."""
    path = tmp_path / "a.npz"
    taps = {"a/x": np.arange(6, dtype=np.float32), "a/i": np.arange(2), "b/y": np.ones(99)}
    about = {"producer": {"name": "x"}, "precision": "float64", "subject": {}}
    write_trace(path, taps, about, sketch_above=50, buckets=8)
    good, data = read_trace(path), bytearray(path.read_bytes())
    refused = 0
    for place in range(len(data)):
        data[place] ^= 1 << place % 8
        path.write_bytes(data)
        data[place] ^= 1 << place % 8
        try:
            found = read_trace(path)
        except ParityError:
            refused += 1
            continue
        assert found.manifest == good.manifest and list(found.taps) == list(good.taps)
        for name in ("a/x", "a/i"):
            assert (found.taps[name] == good.taps[name]).all()
        one, other = found.taps["b/y"], good.taps["b/y"]
        assert (one.buckets == other.buckets).all() and one.crc == other.crc
    assert refused > 0.6 * len(data)  # the rest are dates, versions and lengths of the archive


# --- command line


def test_exit_codes(files, write, tmp_path, capsys):
    assert compare_files(files) == 0
    assert "equivalent: all 7 taps are equivalent." in capsys.readouterr().out
    bad = write("bad.npz", "theirs", fault="scale")
    assert compare_files([files[0], bad, *files[2:]], out=tmp_path / "report") == 1
    printed = capsys.readouterr().out
    assert "verdict: different, begins at forward/hidden in float32: error 1e-05" in printed
    assert printed.count("forward/hidden in float32") == 1
    assert compare_files([files[0], bad]) == 2
    report = json.loads((tmp_path / "report/parity.json").read_text())
    assert report["verdict"] == "different" and {"ours", "theirs"} == set(report["environment"])
    with pytest.raises(ParityError) as caught:
        compare_files(files[:1])
    assert caught.value.exit_code == 2


def test_names_from_a_file(files, write, tmp_path):
    files[1] = write("b-names.npz", "theirs", change=foreign, zeros={})
    names = tmp_path / "names.yaml"
    names.write_text("out/layer\\.(.+): forward/\\1\ngrads/d_(.+): gradients/\\1\n")
    found = [compare_traces(files), compare_traces(files, read_declared(names))]
    assert [len(each.rows) for each in found] == [1, 7]
    assert [len(each.one_sided.candidate) for each in found] == [6, 0]
    assert compare_files(files, names) == 0


def test_two_traces_of_one_framework_are_both_in_the_report(files, write, tmp_path):
    files[1] = write("after.npz")
    with pytest.raises(ParityError, match="by one producer"):  # whose variants are these?
        compare_files(files)
    files[1] = write("after.npz", version="after")
    assert compare_files(files, out=tmp_path / "report") == 0
    report = json.loads((tmp_path / "report/parity.json").read_text())
    assert set(report["environment"]) == {"a", "after"}


BARE = """
import sys
from pathlib import Path
allowed = set(sys.argv[1].split(","))
class Blocker:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in allowed and top not in sys.stdlib_module_names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
import parity
rows = parity.compare(sys.argv[2:])
print(len(rows), {row.verdict for row in rows})
"""


def test_numpy_and_yaml_are_enough(files):
    """With all other imports blocked: frameworks and the other packages of the core."""
    allowed = "numpy,yaml,_yaml,parity,transfg_core"
    command = [sys.executable, "-c", BARE, allowed, *map(str, files)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "7 {'equivalent'}\n"


def test_one_table_of_structural_zeros():
    assert KEY_BIASES.items() <= suite_run.SIBLINGS.items()
