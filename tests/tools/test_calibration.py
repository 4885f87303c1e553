"""The rules of other tools are as their sources state them; right candidates are right, faulty
ones are not; and the tables count what the pairs say."""

import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from tools.calibration import design, page
from tools.calibration.__main__ import main
from tools.calibration.judging import ALONE, NEAR, OURS, arrays_of, fits
from tools.calibration.rules import RULES, measures

ROOT = Path(__file__).parents[2]
BY_NAME = {rule.name: rule.differs for rule in RULES}
needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")


def run(code, *arguments):
    """What a program prints, as JSON."""
    words = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def arrays(*values):
    return np.array(values, np.float32)


# baseline, candidate: within and beyond each tolerance, at zero, and at large numbers
NUMBERS = [
    (0.0, 0.9e-5),
    (0.0, 1.2e-5),
    (1.0, 1.0 + 1.1e-5),
    (1.0, 1.0 + 1.3e-5),
    (1000.0, 1000.0 + 1.2e-3),
    (1000.0, 1000.0 + 1.5e-3),
    (1.0, float("nan")),
    (1e-9, 2e-9),
]

TORCH = """
import json, sys, torch
for pair in [json.loads(sys.argv[1])]:
    said = []
    for baseline, candidate in pair:
        try:
            torch.testing.assert_close(torch.tensor([candidate]), torch.tensor([baseline]))
            said.append(False)
        except AssertionError:
            said.append(True)
print(json.dumps(said))
"""


@needs_torch
def test_assert_close_is_pytorchs():
    rule = BY_NAME["torch.testing.assert_close"]
    ours = [rule(arrays(a), arrays(b), None) for a, b in NUMBERS]
    assert ours == run(TORCH, json.dumps(NUMBERS))
    assert True in ours and False in ours


def test_numpy_and_padiff_are_as_their_sources_call_numpy():
    strict, means = BY_NAME["PaDiff, README"], BY_NAME["PaDiff, default"]
    for a, b in [*NUMBERS, (1.0, 1.0 + 0.9e-4), (1.0, 1.0 + 1.1e-4), (1.0, 1.0)]:
        baseline, candidate = arrays(a, 2.0), arrays(b, 2.0)
        assert BY_NAME["numpy.allclose"](baseline, candidate, None) != np.allclose(
            candidate, baseline
        )
        for rule, first, second, options in (
            (strict, candidate, baseline, {"rtol": 0, "atol": 1e-4}),
            (means, candidate.mean(), baseline.mean(), {"rtol": 1e-7, "atol": 0}),
        ):
            try:
                np.testing.assert_allclose(first, second, **options)
                said = False
            except AssertionError:
                said = True
            assert rule(baseline, candidate, None) == said


def test_means_do_not_see_another_order():
    values = np.random.default_rng(0).standard_normal(64).astype(np.float32)
    turned = np.sort(values)
    assert not BY_NAME["PaDiff, mean, 1e-4"](values, turned, None)
    assert BY_NAME["PaDiff, README"](values, turned, None)


@pytest.mark.parametrize(
    ("baseline", "candidate", "reached", "both"),
    [
        (arrays(1, 0), arrays(1, 5e-4), True, True),
        (arrays(1, 0), arrays(1, 2e-3), True, False),  # cosine fine, error above 1e-3
        (arrays(1e-5, 0), arrays(1e-5, 3e-6), True, False),  # cosine 0.958, error tiny
        (arrays(1, 0), arrays(1, 0.3), False, False),  # cosine 0.958, error above 1e-3
        (arrays(1e-5, 0), arrays(1e-5, 1e-5), False, False),  # cosine 0.71
        (arrays(100, 0), arrays(102, 0), False, False),  # error above 1
        (arrays(0, 0), arrays(5e-4, 0), True, True),  # no cosine
        (arrays(2.0), arrays(-2.0), False, False),  # one number has no cosine; error 4
        (arrays(2.0), arrays(2.0005), True, True),
    ],
)
def test_msprobe(baseline, candidate, reached, both):
    assert BY_NAME["msprobe, accuracy reached"](baseline, candidate, None) != reached
    assert BY_NAME["msprobe, both thresholds"](baseline, candidate, None) != both


def test_msprobe_ratios():
    rule = BY_NAME["msprobe, benchmark ratios"]
    reference = np.array([1.0, 2.0, 4.0, 1e-7])
    baseline = reference + [1e-6, 1e-6, 1e-6, 0]
    assert rule(baseline, baseline, None) is None
    assert not rule(baseline, baseline, reference)
    assert not rule(baseline, reference + [1.9e-6, 1.9e-6, 1.9e-6, 0], reference)
    assert rule(baseline, reference + [2.1e-6, 2.1e-6, 2.1e-6, 0], reference)  # rms and mean
    assert rule(baseline, reference + [0, 0, 3.6e-6, 0], reference)  # rms alone: 2.08
    assert not rule(baseline, reference + [0, 0, 3.4e-6, 0], reference)
    many, error = np.ones(400), np.full(400, 1e-6)
    error[0] = 11e-6  # the largest error alone
    assert rule(many + 1e-6, many + error, many)
    error[0] = 9e-6
    assert not rule(many + 1e-6, many + error, many)
    small = reference + [1e-6, 1e-6, 1e-6, 2e-9]  # a wrong small number; none in the baseline
    assert measures(small, reference)["small"] == 1
    assert not rule(baseline, small, reference)  # no error by the tool's own value for x / 0
    assert rule(reference, baseline, reference)  # the baseline is exact


def test_every_network_has_a_right_and_a_faulty_candidate():
    made = design.cases()
    assert len(made) == 120 and len({case.name for case in made}) == 120
    for right, table in ((True, design.RIGHT), (False, design.FAULTS)):
        own = [case for case in made if case.right is right]
        assert len({(c.kind, c.activation, c.depth, c.width) for c in own}) == 60
        assert {case.change for case in own} == set(table)
        for case in own:
            assert case.kind in case.entry.kinds and case.activation in case.entry.activations
            assert case.entry.setting in design.SETTINGS
            assert right or re.compile(case.place)


def test_the_place_of_a_fault():
    case = next(c for c in design.cases() if not c.right and c.change == "epsilon of one norm")
    assert (case.kind, case.depth) == ("plain", 2)
    assert fits("isolated forward/blocks.1.norm", case)
    assert fits("backward/d/blocks.1.norm", case)
    assert not fits("forward/blocks.1.act", case)
    assert not fits("forward/blocks.1.norm2", case)
    assert not fits("forward/blocks.0.norm", case)


SAME = """
import json, torch
from tools.calibration import design
from tools.calibration.faults import PLANTED
from tools.calibration.nets import SHAPE, build
from tools.calibration.right import REWRITTEN

torch.set_default_dtype(torch.float64)

def numbers(model):
    found = []
    for training in (False, True):
        torch.manual_seed(1)
        model.train(training)
        x = torch.randn(*SHAPE, requires_grad=True)
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.training = module.p == 0 and training
        y = model(x)
        model.zero_grad()
        (y * torch.arange(1.0, 8.0)).sum().backward()
        found += [y, x.grad]
        grads = [p.grad for p in model.parameters()]
        found += [torch.zeros(1) if g is None else g for g in grads]
    return found + [b.double() for b in model.buffers()]

def distance(change, kind, activation):
    torch.manual_seed(0)
    baseline = build(kind, activation, 3, 16)
    for value in baseline.state_dict().values():
        if value.dtype.is_floating_point:
            value.add_(0.3 * torch.rand_like(value))
    candidate = build(kind, activation, 3, 16)
    candidate.load_state_dict(baseline.state_dict())
    pairs = zip(numbers(baseline), numbers(change(candidate)), strict=True)
    return max(float((a - b).detach().norm() / (a.detach().norm() + 1e-3)) for a, b in pairs)

found = {}
for table, rows in ((REWRITTEN, design.RIGHT), (PLANTED, design.FAULTS)):
    for name, change in table.items():
        entry = rows[name]
        found[name] = [
            distance(change, kind, activation)
            for kind in entry.kinds
            for activation in (entry.activations if "activation" in name else entry.activations[:1])
        ]
print(json.dumps([found, [*REWRITTEN], [*PLANTED]]))
"""


@needs_torch
def test_right_candidates_compute_the_same_function_and_faulty_ones_do_not():
    """In float64, in both modes: outputs, gradients and statistics."""
    found, right, faults = run(SAME)
    settings = {name for name, entry in design.RIGHT.items() if entry.setting == name}
    assert {*right} | settings == {*design.RIGHT} and {*faults} == {*design.FAULTS}
    for name in right:
        assert max(found[name]) < 1e-9, name
    for name in faults:
        least = 0 if name == "dropout missing" else 1e-8  # dropout is off here
        assert min(found[name]) >= least, (name, found[name])


class Traces:
    """Taps of a pair, as `Evidence` holds them."""

    def __init__(self, baseline, candidate, reference):
        self.baseline, self.candidate = Taps(baseline), Taps(candidate)
        self.reference = Taps(reference)


class Taps:
    def __init__(self, taps):
        self.taps = taps


def test_rules_see_new_weights_and_no_choices():
    start, step = arrays(1.0, 2.0), np.array([1e-3, 1e-3])
    taps = {
        "parameters/w": start,
        "forward/y": arrays(1, 2),
        "choices/act": np.array([0, 1], np.uint8),
        "evaluation/random": np.array(False),
        "forward/index": np.array([1, 2]),
        "one update/step/w": step,
    }
    other = taps | {"one update/step/w": step + 1e-4}
    found = {name: rest for name, *rest in arrays_of(Traces(taps, other, taps))}
    assert [*found] == ["forward/y", "one update/step/w"]
    baseline, candidate, reference = found["one update/step/w"]
    assert baseline.dtype == candidate.dtype == np.float32
    np.testing.assert_allclose(baseline, [1.001, 2.001], rtol=1e-7)
    np.testing.assert_allclose(candidate, [1.0011, 2.0011], rtol=1e-7)
    np.testing.assert_allclose(reference, [1.001, 2.001], rtol=1e-12)


def pair_facts(right, flags, placed):
    """Facts on one pair: taps that parity flags, and that every other rule flags."""
    case = {"right": right, "kind": "plain", "activation": "relu", "depth": 2, "width": 16}
    counts = {"different": flags[0], "equivalent": 10 - flags[0]}
    rule = {"flagged": flags[1], "taps": 10, "placed": False}
    own = {"flagged": flags[0], "taps": 10, "placed": placed, "verdicts": counts}
    names = [rule.name for rule in RULES]
    return {
        "case": case | {"change": "one"},
        "placed": placed,
        "rules": dict.fromkeys((OURS, NEAR, ALONE), own) | dict.fromkeys(names, rule),
    }


def test_the_tables_count_false_alarms_and_misses():
    right = [pair_facts(True, flags, False) for flags in ((0, 1), (0, 3), (2, 0))]
    faulty = [pair_facts(False, flags, flags[0] == 4) for flags in ((4, 0), (3, 1), (0, 2))]
    lines = page.by_rule(right, faulty).splitlines()
    assert "| parity | 1 | 6.7 % | 1 | 1 |" in lines
    assert "| numpy.allclose | 2 | 13 % | 1 | 0 |" in lines
    assert "| numpy.allclose | 2, 1 | 2, 1 | 2, 1 |" in page.by_network(right, faulty)
    text = page.tables(right + faulty)
    assert "| kind plain | 3 | 1 | 0 of 30 | 3 | 1 | 1 |" in text
    assert "| one | 3 | 2 | 1 | 2 |" in text


def test_an_unknown_pair_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--only", "nothing", "--out", str(tmp_path)])
    assert "--only nothing: no such pair, such as right-00-plain" in capsys.readouterr().err
