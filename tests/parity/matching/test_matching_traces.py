"""Traces whose names or layouts differ: compared without a names file, or with one."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from parity import compare_files, record_taps
from parity.api import compare_traces
from parity.comparison.trace import Trace, read_trace
from parity.comparison.verdict import Comparison, Evidence, OneSided, Row
from parity.errors import ParityError
from parity.matching.confirmed import outputs_of
from parity.matching.declared import Declared, read_declared
from parity.matching.named import Found, NamePair
from parity.matching.telling import found_lines

RNG = np.random.default_rng(11)
OPERATIONS = {
    "norm1": "layer_norm",
    "mlp.fc1": "linear",
    "mlp.drop1": "dropout",
    "drop_path1": "dropout",
}


def vit_taps(names=lambda name: name, fault=""):
    """Taps of a small ViT, `forward` and `backward` and gradients, by the baseline's names."""
    rng = np.random.default_rng(7)
    taps, operations = {}, {}
    for i in range(3):
        for name, operation in OPERATIONS.items():
            width = 12 if "mlp" in name else 4
            path = names(f"blocks.{i}.{name}")
            value = rng.standard_normal((2, 5, width)).astype(np.float32)
            taps[f"forward/{path}"] = value
            operations[f"forward/{path}"] = {"operation": operation}
    if fault:
        path = f"forward/{names(fault)}"
        taps[path] = taps[path] * np.float32(1.01)
    for name in list(taps):
        taps[f"backward/d/{name.partition('/')[2]}"] = rng.standard_normal(taps[name].shape)
    for i in range(3):
        gradient = rng.standard_normal((12, 4)).astype(np.float32)
        taps[f"gradients/{names(f'blocks.{i}.mlp.fc1')}.weight"] = gradient
    return taps, operations


def other_names(name):
    """Jittor-Image-Models' spelling of some names."""
    return name.replace("drop1", "drop").replace("drop_path1", "drop_path")


def far_names(name):
    """Names of which no word is equal."""
    table = {"norm1": "ln_1", "mlp.fc1": "feedforward.0", "mlp.drop1": "feedforward.drop"}
    table["drop_path1"] = "stochastic_depth"
    block, rest = name.split(".", 2)[1:]
    return f"encoder.layer_{block}.{table[rest]}"


@pytest.fixture
def write(tmp_path):
    def write(file, taps, operations=None, who="ours", **options):
        path = tmp_path / file
        facts = {"framework": who, "version": "1", "precision": "float32", "device": "cpu"}
        facts |= {"weights": {}, "inputs": {}, "settings": {}, "threads": 1}
        record_taps(path, taps, operations=operations, **facts | options)
        return path

    return write


@pytest.fixture
def pair(write):
    """Function: names of the candidate -> paths of both traces."""

    def pair(names, fault=""):
        return [
            write("a.npz", *vit_taps()),
            write("b.npz", *vit_taps(names, fault), who="theirs"),
        ]

    return pair


@pytest.mark.parametrize("names", [other_names, far_names])
def test_other_names_are_compared_without_a_names_file(pair, names, capsys):
    files = pair(names)
    found = compare_traces(files)
    assert found.verdict == "equivalent" and len(found.rows) == 27
    assert found.one_sided.baseline == found.one_sided.candidate == ()
    expected = {f"forward/{names(f'blocks.{i}.drop_path1')}" for i in range(3)}
    renamed = {pair.candidate: pair.baseline for pair in found.found.renamed}
    assert expected <= renamed.keys()
    assert all(
        new == f"forward/blocks.{i}.drop_path1"
        for i, new in enumerate(renamed[name] for name in sorted(expected))
    )
    assert compare_files(files) == 0
    assert "taps have other names in the candidate and were matched" in capsys.readouterr().out


@pytest.mark.parametrize("names", [other_names, far_names])
def test_a_fault_behind_another_name_is_found_there(pair, names):
    found = compare_traces(pair(names, fault="blocks.1.mlp.drop1"))
    assert found.verdict == "different"
    bad = [(row.stage, row.tap) for row in found.rows if row.verdict == "different"]
    assert bad == [("forward", "blocks.1.mlp.drop1")]


def found_of(confidence=0.6):
    pairs = [("parameters/a.weight", "parameters/x.weight"), ("forward/a", "forward/x")]
    return Found(tuple(NamePair(a, b, "order", confidence) for a, b in pairs))


def output(tap, verdict="equivalent", stage="forward"):
    numbers = (1e-7, 0.0, 1e-7, 5e-7, 0.0, 1e-7)
    return Row("", stage, tap, "float32", "b : a", verdict, *numbers)


def comparison_of(rows, **reads):
    """A comparison of linear modules that read these taps."""
    made = {f"forward/{m}": {"operation": "linear", "reads": [x]} for m, x in reads.items()}
    trace = Trace(Path("a.npz"), {"operations": made}, {})
    return Comparison(rows, OneSided(), (Evidence(trace, trace),), None)


@pytest.mark.parametrize(
    ("rows", "doubtful"),
    [
        ([], True),
        ([output("a")], False),
        ([output("a", "vacuous")], True),
        ([output("a"), output("b", "different")], False),
        ([output("a"), output("a#2", "different")], True),
        ([output("a"), output("a", "undecided", "training forward")], True),
        ([output("b")], False),  # all outputs agree
        ([output("b", "different")], True),
        ([output("a", stage="isolated forward")], True),  # it says nothing of the whole pass
    ],
)
def test_a_name_that_its_output_confirms_is_not_in_doubt(rows, doubtful):
    outputs = outputs_of(comparison_of(rows, a="inputs/a", b="inputs/b"))
    lines = found_lines(found_of(), outputs)
    assert any("not sure" in line for line in lines) == doubtful
    assert not any("not sure" in line for line in found_lines(found_of(0.9), outputs))


def test_a_sibling_that_reads_the_same_may_be_exchanged():
    """Gate and up of a SwiGLU: each computes with the other's weights, and its output agrees."""
    rows = [output("a"), output("b")]
    same = comparison_of([*rows, output("c", "different")], a="inputs/a", b="inputs/a")
    assert not outputs_of(same).confirm("a.weight")
    assert outputs_of(comparison_of(rows, a="inputs/a", b="inputs/a")).confirm("a.weight")


def test_inputs_of_modules_that_belong_to_others_are_no_guess(write):
    """Both have an input between two functions, at other places: nothing is left to declare."""
    a, b, c, d = RNG.standard_normal((4, 9)).astype(np.float32)
    first = {"forward/body": a, "inputs/head": b, "forward/head": c}
    second = {"forward/body": a, "inputs/mixer.out": d, "forward/head": c}
    files = [write("a.npz", first), write("b.npz", second, who="theirs")]
    found = compare_traces(files)
    assert [row.tap for row in found.rows] == ["body", "head"] and not found.found.guesses
    assert found.one_sided.baseline == ("inputs/head",)
    assert found.one_sided.candidate == ("inputs/mixer.out",)


def test_the_input_of_a_module_that_is_a_guess_is_one_too(write):
    a, b, c, d = RNG.standard_normal((4, 9)).astype(np.float32)
    first = {"forward/body": a, "inputs/neck": b, "forward/neck": b, "forward/head": c}
    second = {"forward/body": a, "inputs/mixer.out": d, "forward/mixer.out": d, "forward/head": c}
    found = compare_traces([write("a.npz", first), write("b.npz", second, who="theirs")])
    assert [row.tap for row in found.rows] == ["body", "head"]
    assert {pair.baseline for pair in found.found.guesses} == {"forward/neck", "inputs/neck"}


def test_taps_in_doubt_are_settled_by_their_numbers_or_listed(write, capsys):
    """Two unlike names for two equal shapes: numbers show which; without them no row."""
    one, two = RNG.standard_normal((2, 9)).astype(np.float32)
    first = write("a.npz", {"forward/alpha": one, "forward/gamma_ray": two, "forward/end": one})
    taps = {"forward/xi": two, "forward/psi": one, "forward/end": one}
    found = compare_traces([first, write("b.npz", taps, who="theirs")])
    assert found.verdict == "equivalent" and len(found.rows) == 3
    assert {pair.how for pair in found.found.renamed} == {"values"}
    noise = RNG.standard_normal((2, 9)).astype(np.float32)
    taps = {"forward/xi": noise[0], "forward/psi": noise[1], "forward/end": one}
    files = [first, write("c.npz", taps, who="theirs")]
    found = compare_traces(files)  # alike in their places alone: not compared
    assert [row.tap for row in found.rows] == ["end"] and len(found.found.guesses) == 2
    assert found.verdict == "equivalent" and not found.found.renamed
    assert found.one_sided.baseline == ("forward/alpha", "forward/gamma_ray")
    assert found.one_sided.candidate == ("forward/xi", "forward/psi")
    assert compare_files(files) == 0
    assert "names: 2 pairs of taps with other names and other numbers" in capsys.readouterr().out
    files[1] = write("d.npz", {"forward/xi": noise[0], "forward/end": one}, who="theirs")
    found = compare_traces(files)  # one of them is missing: no row
    assert [row.tap for row in found.rows] == ["end"] and len(found.found.doubts) == 1
    compare_files(files)
    text = "other structure: alpha, gamma_ray of the baseline and xi of the candidate may belong"
    assert text in capsys.readouterr().out


def test_a_wrong_guess_is_compared_in_no_stage(write):
    """The gradient by an output has its name from the output, so it is no better known."""
    x, y, g, h = RNG.standard_normal((4, 9)).astype(np.float32)
    ours = {"forward/alpha": x, "forward/end": x, "backward/d/end": g, "backward/d/alpha": g}
    theirs = {"forward/xi": y, "forward/end": x, "backward/d/end": g, "backward/d/xi": h}
    found = compare_traces([write("a.npz", ours), write("b.npz", theirs, who="theirs")])
    assert [row.tap for row in found.rows] == ["end", "d/end"]
    assert found.one_sided.candidate == ("forward/xi", "backward/d/xi")
    theirs["forward/xi"] = x  # the numbers show the match, so the gradient is wrong
    found = compare_traces([write("a.npz", ours), write("c.npz", theirs, who="theirs")])
    assert [row.tap for row in found.rows if row.verdict == "different"] == ["d/alpha"]


def test_what_one_stage_shows_counts_in_the_next(write):
    """Numbers of the outputs show which module is which; their gradients alone show nothing."""
    one, two = RNG.standard_normal((2, 9)).astype(np.float32)
    slopes = RNG.standard_normal((2, 9)).astype(np.float32)
    ours = {"forward/alpha": one, "forward/gamma_ray": two}
    ours |= {"backward/d/alpha": slopes[0], "backward/d/gamma_ray": slopes[1]}
    theirs = {"forward/xi": two, "forward/psi": one}
    theirs |= {"backward/d/xi": slopes[1] * 2, "backward/d/psi": slopes[0] * 3}
    found = compare_traces([write("a.npz", ours), write("b.npz", theirs, who="theirs")])
    errors = {row.tap: row.error for row in found.rows if row.stage == "backward"}
    assert errors == pytest.approx({"d/alpha": 2, "d/gamma_ray": 1})


def test_variants_of_the_candidate_get_the_same_names(write):
    taps, operations = vit_taps()
    theirs, facts = vit_taps(far_names)
    files = [
        write("a.npz", taps, operations),
        write("b.npz", theirs, facts, who="theirs"),
        write("v.npz", theirs, facts, who="theirs", variant="ulp:1"),
        write("w.npz", taps, operations, variant="ulp:1"),
    ]
    found = compare_traces(files)
    candidate = found.pairs[0].candidate_variants[0]
    assert set(candidate.taps) == set(read_trace(files[0]).taps)
    operation = candidate.manifest["operations"]["forward/blocks.2.norm1"]["operation"]
    assert operation == "layer_norm"


def write_names(tmp_path, text):
    path = tmp_path / "names.yaml"
    path.write_text(text, encoding="utf-8")
    return path


LAYERS = {
    "forward/conv": RNG.standard_normal((2, 6, 3, 5)).astype(np.float32),
    "gradients/fc.weight": RNG.standard_normal((7, 6)).astype(np.float32),
    "gradients/square.weight": RNG.standard_normal((6, 6)).astype(np.float32),
}


def test_layouts_are_told_and_not_applied_until_they_are_declared(write, tmp_path, capsys):
    turned = {
        "forward/conv": np.moveaxis(LAYERS["forward/conv"], 1, -1),
        "gradients/fc.weight": LAYERS["gradients/fc.weight"].T,
        "gradients/square.weight": LAYERS["gradients/square.weight"].T,
    }
    files = [write("a.npz", LAYERS), write("b.npz", turned, who="theirs")]
    found = compare_traces(files)
    assert {row.verdict for row in found.rows} == {"different"}
    assert found.found.layouts == {
        "forward/conv": "channels last",
        "gradients/fc.weight": "(in, out)",
        "gradients/square.weight": "(in, out)",
    }
    assert compare_files(files) == 1
    printed = capsys.readouterr().out
    lines = [
        line.partition("`")[2].strip("`")
        for line in printed.split("\n")
        if "add to layouts" in line
    ]
    assert len(lines) == 3
    names = write_names(tmp_path, "layouts:\n" + "".join(f"  {line}\n" for line in lines))
    assert compare_files(files, names) == 0
    assert "layout: (in, out), as declared, in 2 taps" in capsys.readouterr().out
    assert compare_traces(files, read_declared(names)).found.layouts == {}


def test_a_transposed_fault_is_no_declared_layout(write, tmp_path):
    """A declared layout that is not there makes a difference."""
    files = [write("a.npz", LAYERS), write("b.npz", LAYERS, who="theirs")]
    assert compare_traces(files).verdict == "equivalent"
    names = write_names(tmp_path, "layouts:\n  square.weight: (in, out)\n")
    assert compare_traces(files, read_declared(names)).verdict == "different"


def test_the_line_to_declare_a_layout_has_the_candidates_name(write):
    """It fits any number only where all taps that it fits have the layout."""
    first, last = RNG.standard_normal((2, 4, 5)), RNG.standard_normal((2, 3, 4))
    ours = {"forward/words.gru.0": first, "forward/words.gru.1": last, "losses/loss": last[0, 0, 0]}
    theirs = {
        "forward/text.rnn.0": first.swapaxes(0, 1).copy(),
        "forward/text.rnn.1": last,
        "losses/loss": last[0, 0, 0],
    }
    names = {r"text\.rnn": "words.gru", r"text\.rnn\.(.+)": r"words.gru.\1"}
    files = [write("a.npz", ours), write("b.npz", theirs, who="theirs")]
    found = compare_traces(files, Declared(names, strict=False)).found
    line = r"text\.rnn\.0: axes 1 0 2"
    assert [*found.layout_lines()] == [line]
    assert [*replace(found, of_pair=True).layout_lines()] == [r'r"text\.rnn\.0": "axes 1 0 2"']
    layouts = dict([line.split(": ")])
    declared = Declared(names, layouts, strict=False)
    assert compare_traces(files, declared).verdict == "equivalent"
    with pytest.raises(ParityError, match=r"forward/words.gru.1: layouts: axes 1 0 2"):
        compare_traces(files, Declared(names, {r"text\.rnn\..*": "axes 1 0 2"}, strict=False))


def test_query_key_and_value_in_one_array(write, tmp_path):
    weight = RNG.standard_normal((12, 4)).astype(np.float32)
    parts = dict(zip(("query", "key", "value"), np.split(weight, 3), strict=True))
    taps = {f"gradients/block0.{name}.weight": value for name, value in parts.items()}
    end = {"losses/loss": np.float32(1.5)}
    one, three = {"gradients/block0.qkv.weight": weight} | end, taps | end
    for ours, theirs, count in ((one, three, 4), (three, one, 2)):
        files = [write("a.npz", ours), write("b.npz", theirs, who="theirs")]
        found = compare_traces(files)
        assert len(found.rows) == 1 and len(found.found.fused) == 1
        lines = found.found.fused[0].lines()
        text = "names:\n" + "".join(f"  {line}\n" for line in lines)
        found = compare_traces(files, read_declared(write_names(tmp_path, text)))
        assert found.verdict == "equivalent" and len(found.rows) == count
    # the stage is said once, also where the pattern has it
    whole = Declared({r"(.*)qkv(.*)": r"\1query\2 + \1key\2 + \1value\2"})
    for names in (read_declared(tmp_path / "names.yaml"), whole):
        rows = compare_traces(files, names).rows
        assert "block0.query.weight + block0.key.weight + block0.value.weight" in [
            row.tap for row in rows
        ]
    # another order is a difference
    swapped = {"gradients/block0.qkv.weight": np.concatenate([*list(parts.values())[::-1]])} | end
    files = [write("a.npz", three), write("b.npz", swapped, who="theirs")]
    found = compare_traces(files, read_declared(write_names(tmp_path, text)))
    assert found.verdict == "different"
    assert found.found.layouts.popitem()[1] == "qkv order v k q"


def test_sketches_keep_their_names_and_refuse_a_layout(write):
    options = {"sketch_above": 10}
    files = [
        write("a.npz", {"gradients/fc.weight": LAYERS["gradients/fc.weight"]}, **options),
        write(
            "b.npz",
            {"gradients/dense.kernel": LAYERS["gradients/fc.weight"]},
            who="theirs",
            **options,
        ),
    ]
    assert compare_traces(files).verdict == "equivalent"
    with pytest.raises(ParityError, match="stored as a sketch"):
        compare_traces(files, Declared(layouts={".*kernel": "reshape"}))


NAMES_FILES = {
    "names:\n  a: b\nfoo:\n  c: d\n": "expected the keys names, layouts, found 'foo'",
    "names:\n  a: 3\n": "both text",
    "layouts:\n  a: NCHW\n": "found 'NCHW'",
    "- a\n": "expected lines",
    "a: [": "expected a YAML file",
}


@pytest.mark.parametrize("text", NAMES_FILES)
def test_wrong_names_files_are_refused(tmp_path, text):
    with pytest.raises(ParityError, match=NAMES_FILES[text]):
        read_declared(write_names(tmp_path, text))


def test_old_and_new_names_files(tmp_path):
    old = read_declared(write_names(tmp_path, "out/(.+): forward/\\1\n"))
    new = read_declared(write_names(tmp_path, "names:\n  out/(.+): forward/\\1\n"))
    assert old == new and old.alias("out/x") == ("out/(.+)", "forward/x")
    # a file whose patterns are called like the keys is an old one
    assert read_declared(write_names(tmp_path, "names: a\n")).names == {"names": "a"}


def test_patterns_without_a_stage_fit_in_every_stage():
    declared = Declared({r"layer(\d)\.(.+)": r"block\1.\2"}, {"layer.*": "(in, out)"})
    for tap in ("forward/{}", "backward/d/{}", "one update/step/{}", "gradients/input:{}"):
        name = tap.format("layer3.fc")
        assert declared.alias(name)[1] == tap.format("block3.fc")
        assert declared.layout(name).name == "(in, out)"
    assert declared.alias("forward/conv") is None and declared.layout("forward/conv") is None


def test_patterns_that_fit_nothing_are_refused(pair):
    files = pair(other_names)
    for declared in (Declared({"nothing": "x"}), Declared(layouts={"nothing": "reshape"})):
        with pytest.raises(ParityError, match="nothing fits none of its 27 taps"):
            compare_traces(files, declared)
    found = compare_traces(files, Declared({"nothing": "x"}, strict=False))
    assert found.verdict == "equivalent"


def test_equal_names_say_nothing(pair):
    assert found_lines(compare_traces(pair(lambda name: name)).found) == []
