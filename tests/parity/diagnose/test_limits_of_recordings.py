"""What a recording cannot show is said in the answer, and nothing is said where all is there."""

from dataclasses import replace

import numpy as np

from parity.comparison.trace import Trace
from parity.comparison.verdict import Evidence, Row
from parity.diagnose.answer import answer
from parity.diagnose.causes.hypothesis import Hypothesis
from parity.diagnose.limits import MISSING, limits_of

X = np.arange(6, dtype=np.float32).reshape(2, 3)


def evidence(**facts):
    """A pair whose candidate differs in its one tap; `facts` are of the candidate's manifest."""
    made = {"forward/x": {"operation": "relu", "reads": ["inputs/x"]}}
    manifest = {"precision": "float32", "case": "", "subject": {}, "operations": made}
    traces = [
        Trace(name, manifest | {"producer": {"name": name}} | more, {"inputs/x": X, "forward/x": y})
        for name, y, more in (("one", X, {"abilities": [*MISSING]}), ("two", X * X + 1, facts))
    ]
    return Evidence(*traces)


def row():
    return Row("", "forward", "x", "float32", "two : one", "different", 1, 0, 0, 1e-6, 0, 1)


def test_all_abilities_and_partners_say_nothing():
    assert list(limits_of([evidence(abilities=[*MISSING], free=[])], {})) == []
    assert list(limits_of([evidence()], {})) == []  # a recording by hand does not say


def test_missing_abilities_are_one_line():
    pair = evidence(abilities=["gradients", "isolated", "follow"])
    assert list(limits_of([pair, pair], {})) == [
        "two records no optimiser step, records nothing in float64"
    ]


def test_choices_without_a_partner_are_counted_once():
    pair = evidence(free=["choices/net:relu", "training choices/net:relu"])
    again = replace(pair, baseline_variants=[pair.candidate])
    (line,) = limits_of([pair, again], {})
    assert line.startswith("2 choices of two found no partner on the other side (first choices/net")


def test_modules_that_are_not_in_the_recordings_are_counted_once():
    pair = evidence(uncalled=["a", "b", "c", "d"], not_alone=["e"])
    lines = [*limits_of([pair, replace(pair, baseline_variants=[pair.candidate])], {})]
    assert lines[0].startswith("never called: 4 modules of two (a, b, c and 1 more); only what")
    assert lines[1].startswith("not computed alone, since ")
    assert "baseline's: 1 module call of two (e); a fault there" in lines[1]
    assert len(lines) == 2


def test_a_rule_that_fails_is_shown_and_one_that_works_is_not():
    def broken(tap, context):
        def recompute(tap, context, pair):
            yield Hypothesis("shape", "", X.reshape(4, 3))

        return recompute

    (line,) = answer([row()], [evidence()], rule=broken).limits
    assert "were not tried in 1 taps" in line and "forward/x: ValueError: cannot reshape" in line
    assert answer([row()], [evidence()], rule=lambda tap, context: None).limits == ()


def test_choices_that_agree_are_no_limit():
    kink = np.array([1, 0], np.uint8)
    for other, count in ((kink, 0), (kink[::-1], 1)):
        sides = [
            Trace(
                name,
                {"producer": {"name": name}, "precision": "float32", "free": ["choices/relu"]},
                {"choices/relu": value},
            )
            for name, value in (("one", kink), ("two", other))
        ]
        lines = [line for line in limits_of([Evidence(*sides)], {}) if "no partner" in line]
        assert len(lines) == 2 * count
