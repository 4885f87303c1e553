"""Layouts, fused weights and doubtful names are findings, each with the line that declares it."""

import json

import numpy as np
import pytest

from parity import compare_traces, record_taps
from parity.api import compare_files, explained
from parity.comparison.verdict import OneSided
from parity.matching.declared import read_declared
from parity.report.answer import answer_lines

RNG = np.random.default_rng(5)
X = RNG.standard_normal((3, 4, 5, 6)).astype(np.float32)
QKV = {n: RNG.standard_normal((12, 4)).astype(np.float32) for n in ("block0", "block1")}
END = {"losses/loss": np.float32(1.5)}


@pytest.fixture
def write(tmp_path):
    def made(name, taps):
        facts = {"precision": "float32", "device": "cpu", "threads": 1}
        about = {"inputs": {"x": X}, "settings": {}, "framework": name, "version": "1"}
        record_taps(tmp_path / f"{name}.npz", taps, weights={}, **about, **facts)
        return tmp_path / f"{name}.npz"

    return made


def found_in(files, names=None):
    comparison = compare_traces(files, read_declared(names) if names else None)
    return explained(comparison), comparison


def parts(stage, order="qkv"):
    """Query, key and value of both blocks as three arrays each."""
    names = {"q": "query", "k": "key", "v": "value"}
    return {
        f"{stage}/{block}.{names[letter]}.weight": third
        for block, whole in QKV.items()
        for letter, third in zip(order, np.split(whole, 3), strict=True)
    }


def test_layouts_are_findings_and_hide_no_fault(write, tmp_path):
    theirs = {
        "forward/conv": np.moveaxis(X, 1, -1).copy(),
        "forward/pool": np.moveaxis(X, 1, -1).copy(),
        "forward/end": X.sum((2, 3)) * np.float32(1.01),
    }
    ours = {"forward/conv": X, "forward/pool": X, "forward/end": X.sum((2, 3))}
    files = [write("a", ours), write("b", theirs)]
    result, comparison = found_in(files)
    assert [(f.kind, f.code) for f in result.findings] == [
        ("another function", "scaled"),
        ("other structure", "layout"),
        ("other structure", "layout"),
    ]
    assert result.verdict == "different"
    lines = answer_lines(result, comparison.rows)
    declared = [line.partition("`")[2].strip("`") for line in lines if "add to layouts" in line]
    (tmp_path / "names.yaml").write_text("layouts:\n" + "".join(f"  {n}\n" for n in declared))
    result, _ = found_in(files, tmp_path / "names.yaml")
    assert [f.code for f in result.findings] == ["scaled"]


def test_what_follows_from_a_layout_is_no_fault(write):
    theirs = {"forward/conv": np.moveaxis(X, 1, -1).copy(), "forward/end": X.sum((2, 3))}
    ours = {"forward/conv": X, "forward/end": X.sum((2, 3))}
    (finding,) = found_in([write("a", ours), write("b", theirs)])[0].findings
    assert finding.explained == ("forward/conv",) and finding.places == ("conv",)


def test_fused_weights_of_all_blocks_and_stages_are_one_finding(write, tmp_path, capsys):
    fused = {f"{s}/{b}.qkv.weight": w for s in ("parameters", "gradients") for b, w in QKV.items()}
    split = parts("parameters") | parts("gradients")
    rest = {f"{s}/{b}.norm": X[0, 0, 0] for s in ("parameters", "gradients") for b in QKV} | END
    files = [write("a", split | rest), write("b", fused | rest)]
    result, comparison = found_in(files)
    (finding,) = result.findings
    assert (finding.kind, finding.code) == ("other structure", "fused")
    assert "(this holds for 1 more like it)" in finding.text
    assert len(finding.explained) == 16 and "lacks parameters" not in finding.text
    line = finding.text.partition("add to names: `")[2].partition("`")[0]
    (tmp_path / "names.yaml").write_text(f"names:\n  {line}\n")
    result, comparison = found_in(files, tmp_path / "names.yaml")
    assert result.findings == () and len(comparison.rows) == 9
    assert compare_files(files, out=tmp_path / "report") == 0
    printed = capsys.readouterr().out
    assert "only in" not in printed and printed.count("qkv.weight of the candidate is") == 1
    record = json.loads((tmp_path / "report/parity.json").read_text())
    assert [each["causes"][0][0] for each in record["findings"]] == ["fused"]
    assert line.replace("\\", "\\\\") in (tmp_path / "report/parity.json").read_text()


def test_a_doubt_is_one_finding_for_all_stages(write):
    a, b = RNG.standard_normal((2, 9)).astype(np.float32)
    stages = ("gradients", "one update")
    ours = {f"{s}/{n}": v for s in stages for n, v in (("alpha", a), ("gamma_ray", b))}
    theirs = {f"{s}/xi": 3 * a * b for s in stages}
    result, comparison = found_in([write("a", ours | END), write("b", theirs | END)])
    (finding,) = result.findings
    assert (finding.kind, finding.code) == ("other structure", "name in doubt")
    assert finding.text.startswith("alpha, gamma_ray of the baseline and xi of the candidate may")
    lines = answer_lines(result, comparison.rows, comparison.one_sided)
    assert not any(line.startswith("only in") for line in lines)


def test_counters_are_whole_numbers_of_the_state_alone(write):
    counts = {f"parameters/bn{n}.num_batches_tracked": np.array(n) for n in range(20)}
    others = {"forward/tokens": np.arange(3), "parameters/scale": np.float32([1, 2])}
    files = [write("a", END | counts | others), write("b", END)]
    one_sided = compare_traces(files).one_sided
    assert one_sided.counters == tuple(counts)
    assert set(one_sided.baseline) == {*counts, *others}
    assert one_sided.without(counts) == OneSided(tuple(others))


def test_a_missing_parameter_is_told_once_and_not_as_frozen(write):
    extra = {f"{stage}/fc.bias": np.float32([1, 2]) for stage in ("parameters", "gradients")}
    detached = {"gradients/conv.weight": np.float32([3, 4, 5])}
    both = END | {"parameters/conv.weight": np.float32([1, 3, 2])}
    both["gradients/conv.bias"] = np.float32([1, 2])
    result, _ = found_in([write("a", both | extra | detached), write("b", both)])
    assert [(f.code, f.text) for f in result.findings] == [
        ("frozen", "no gradient reaches 1 parameter (first conv.weight): frozen or detached in the "
         "candidate"),
        ("one-sided", "the candidate lacks 1 parameter (first fc.bias)"),
    ]  # fmt: skip
    assert set(result.findings[1].explained) == {*extra}
