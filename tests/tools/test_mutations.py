"""The planted faults fit the code, and differences are placed where they begin."""

from collections import Counter
from dataclasses import replace
from fnmatch import fnmatchcase

import numpy as np
import pytest

from parity.cases.case import BY_NAME, CASES
from parity.comparison.trace import Trace
from parity.comparison.verdict import Row
from parity.diagnose.finding import Finding
from parity.suite import run as suite_run
from parity.suite.locate import PHASES, find_causes, locate
from tools.mutation import __main__ as mutation
from tools.mutation import false_positives
from tools.mutation.__main__ import Outcome, table
from tools.mutation.planting import ROOT, Edit, complaint, load_mutations
from transfg_core.errors import UserError
from transfg_core.models.layout import maker_of, taps_of
from transfg_core.schedule import lr_at

MUTATIONS = load_mutations()
STAGES = [stage for phase in PHASES for stage in phase.stages]


def test_enough_faults_in_both_twins_and_each_name_once():
    assert not [name for name, n in Counter(each.name for each in MUTATIONS).items() if n > 1]
    twins = Counter(each.twin for each in MUTATIONS)
    assert twins["torch"] >= 20 and twins["jittor"] >= 20 and twins["both"] >= 3


@pytest.mark.parametrize("planted", MUTATIONS, ids=lambda planted: planted.name)
def test_fault_can_be_planted(planted):
    texts = {}
    for edit in planted.edits:
        text = texts.get(edit.file) or (ROOT / edit.file).read_text(encoding="utf-8")
        assert text.count(edit.old) == edit.count, edit
        texts[edit.file] = text.replace(edit.old, edit.new)
        assert texts[edit.file] != text
    for file, text in texts.items():
        compile(text, file, "exec")


@pytest.mark.parametrize("planted", MUTATIONS, ids=lambda planted: planted.name)
def test_expected_place_is_a_known_stage(planted):
    for pattern in planted.taps:
        stage = pattern.partition("/")[0]
        assert stage == "error" or any(fnmatchcase(known, stage) for known in STAGES), pattern


def test_text_that_is_not_there_is_an_error(tmp_path):
    (tmp_path / "model.py").write_text("x = 1\nx = 1\n")
    with pytest.raises(UserError, match="expected 1 times, found 2"):
        Edit("model.py", "x = 1", "x = 2").apply(tmp_path)
    Edit("model.py", "x = 1", "x = 2", count=2).apply(tmp_path)
    assert (tmp_path / "model.py").read_text() == "x = 2\nx = 2\n"


def test_unknown_field_is_an_error(tmp_path):
    path = tmp_path / "mutations.yaml"
    path.write_text("- {name: a, file: b, replace: c, with: d, tap: e, taps: f}\n")
    with pytest.raises(UserError, match="taps"):
        load_mutations(path)


@pytest.mark.parametrize(
    ("options", "nearest"),
    [
        (["--only", "gelu-tahn"], "gelu-tanh"),
        (["--only", "gelu-*", "no-such-*"], ""),
        (["--only", "gelu-tanh", "--backend", "jittor"], "gelu-tanh-in-one-block"),
    ],
)
def test_a_name_that_matches_no_fault_is_refused_before_recording(
    options, nearest, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(mutation, "record_reference", lambda *_: pytest.fail("recorded"))
    assert mutation.main([*options, "--out", str(tmp_path)]) == 2
    assert "expected an entry of mutations.yaml that" in (printed := capsys.readouterr().err)
    assert printed.strip().endswith(nearest)


def test_clean_backends_are_judged_as_in_the_suite(tmp_path, monkeypatch):
    """With other evidence, the false alarms would not be the suite's."""
    recorded = []
    monkeypatch.setattr(suite_run, "record_suite", recorded.append)
    monkeypatch.setattr(suite_run, "judge_suite", lambda suite: [])
    monkeypatch.setattr(false_positives, "save_trained", lambda *_: None)
    assert false_positives.run_clean(tmp_path, 1, CASES) == []
    assert [suite.seed for suite in recorded] == [None, 101]


def row(place, verdict="equivalent", case="overlap", precision="float64", pair="b : a"):
    stage, _, tap = place.partition("/")
    return Row(case, stage, tap, precision, pair, verdict, 1e-3, 0.0, 0.0, 1e-13, 0.0, 1e-3)


PASS = ("patch_embed", "block00.norm1", "block00.mlp.gelu", "block00", "block01", "logits")
PLACES = [
    *(f"isolated forward/{tap}" for tap in PASS),
    *(f"isolated gradients/grad/{name}" for name in ("patch_embed.bias", "blocks.0.norm1.bias")),
    *(f"isolated backward/d/{tap}" for tap in PASS),
    *(f"forward/{tap}" for tap in PASS),
    "gradients/grad_norm",
    "gradients/clipped_norm",
    "one update/loss",
    "one update/grad_norm",
    "one update/step/head.bias",
    "one update/momentum/head.bias",
    "updates/loss",
    "evaluation/logits",
]


def rows_with(*different, **facts):
    return [
        row(place, "different" if place in different else "equivalent", **facts) for place in PLACES
    ]


@pytest.mark.parametrize(
    ("different", "first", "direction"),
    [
        (["forward/block00", "isolated forward/block01"], "isolated forward/block01", "forward"),
        (
            ["isolated forward/block01", "isolated forward/block00.mlp.gelu"],
            "isolated forward/block00.mlp.gelu",
            "forward",
        ),
        (
            ["isolated backward/d/patch_embed", "isolated backward/d/block01"],
            "isolated backward/d/block01",
            "backward",
        ),
        (
            ["isolated gradients/grad/blocks.0.norm1.bias", "isolated backward/d/patch_embed"],
            "isolated gradients/grad/blocks.0.norm1.bias",
            "backward",
        ),
        (["updates/loss", "gradients/clipped_norm"], "gradients/clipped_norm", "backward"),
        (
            ["one update/step/head.bias", "one update/momentum/head.bias", "updates/loss"],
            "one update/momentum/head.bias",
            "update",
        ),
        (["evaluation/logits"], "evaluation/logits", "forward"),
    ],
)
def test_first_divergence(different, first, direction):
    (found,) = locate(rows_with(*different))
    assert (found.place, found.direction) == (first, direction)


def test_nothing_differs():
    assert locate(rows_with()) == []
    assert locate([]) == []


def test_float64_goes_before_float32():
    rows = rows_with("isolated forward/block00.norm1", precision="float32")
    rows += rows_with("isolated forward/logits", "isolated forward/block01")
    (found,) = locate(rows)
    assert (found.precision, found.tap) == ("float64", "block01")


def test_sharpest_case_comes_first_and_each_case_is_listed():
    coarse = [
        row for row in rows_with("isolated forward/block01", case="mul") if "." not in row.tap
    ]
    found = locate(coarse + rows_with("isolated forward/block00.mlp.gelu", case="vit"))
    assert [finding.case for finding in found] == ["vit", "mul"]
    later = locate(coarse + rows_with("updates/loss", case="vit"))
    assert [finding.case for finding in later] == ["mul", "vit"]


def test_an_unknown_stage_comes_last():
    rows = [row("else/x", "different"), row("cross-load/loss", "different")]
    assert locate(rows)[0].place == "cross-load/loss"
    assert locate(rows[:1])[0].place == "else/x"


def test_other_failing_taps_are_named():
    places = [f"isolated forward/{tap}" for tap in PASS]
    (found,) = locate(rows_with(*places))
    assert "5 more differ there: block00.norm1, block00.mlp.gelu" in found.text


@pytest.mark.parametrize(
    ("param", "tap"),
    [
        ("blocks.10.attn.query.weight", "block10.attn.query"),
        ("part_layer.mlp.fc1.bias", "part_layer.mlp.fc1"),
        ("pos_embed", "tokens"),
        ("head.bias", "logits"),
        ("patch_embed.weight", "patch_embed"),
    ],
)
def test_maker_of_a_parameter(param, tap):
    model = BY_NAME["overlap"].config().model.model_copy(update={"depth": 12})
    assert maker_of(param, taps_of(model)) == tap


def trace(taps, name="a", path="a.npz", **subject):
    manifest = {"producer": {"name": name}, "precision": "float64", "subject": subject}
    return Trace(path, manifest, taps)


def test_cause_is_named_from_both_traces():
    value = np.random.default_rng(0).standard_normal((4, 5, 6))
    place = "isolated forward/block00"
    found = Finding("overlap", "b : a", "float64", "isolated forward", "block00", "forward")
    named = find_causes(found, trace({place: value}), trace({place: 2 * value}, "b"))
    assert named.causes[0][0] == "scaled" and "2 · A" in named.text
    absent = find_causes(found, trace({place: value}), trace({}, "b"))
    assert absent == found


@pytest.mark.parametrize("case", ["blocks", "nonoverlap", "add"])
def test_a_step_done_twice_is_named_at_the_rate_of_the_first_update(case):
    """With and without warm-up: at another rate, the doubled step may look right."""
    config = BY_NAME[case].config()
    grad, weight = np.random.default_rng(0).standard_normal((2, 4, 5))
    rate = lr_at(1, config.optim, config.train.steps)
    step = -rate * (grad + config.optim.weight_decay * weight)
    taps = {"one update/step/w": step, "gradients/grad/w": grad, "parameters/param/w": weight}
    first = trace(taps, settings=config.model_dump(mode="json"))
    found = Finding(case, "b : a", "float64", "one update", "step/w", "update")
    second = trace({"one update/step/w": 2 * step}, "b")
    assert "done twice" in find_causes(found, first, second).causes[0][1]


def test_table_shows_missed_faults():
    caught = Outcome("one", "torch", "yes", place="forward/x", placed=True, named=True)
    missed = replace(caught, name="two", caught="no", place="", placed=False, named=None)
    text = table([caught, missed])
    assert "2 faults: 1 caught by a verdict, 0 that keep the backend from running, 1 placed" in text
    assert "of 1 with a known cause 1" in text


@pytest.mark.parametrize(
    ("printed", "line"),
    [
        ("", ""),
        ("Traceback\n  x = 1\nKeyError: 'a'\n\x1b[m\n", "KeyError: 'a'"),
        ("torch overlap\nerror: no such case\n", "error: no such case"),
        ("killed\n", "killed"),
    ],
)
def test_message_of_a_mutant_that_does_not_run(printed, line):
    assert complaint(printed) == line
