"""Traces of the suite are explained by the suite's causes, all others by those of any pair."""

from pathlib import Path

import numpy as np
import pytest

from parity.cases.case import CASES
from parity.comparison.trace import Trace
from parity.comparison.verdict import Comparison, Evidence, OneSided, Row
from parity.matching.named import Found
from parity.suite.explaining import SECTIONS, explained_as_in_suite

X = np.linspace(-2, 2, 24).reshape(4, 6)
TAP = "block00.mlp.gelu"


def gelu(x, tanh):
    from math import erf

    inner = (
        np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))
        if tanh
        else np.vectorize(erf)(x / np.sqrt(2))
    )
    return x * (1 + inner) / 2


def comparison(settings, tanh=True, verdict="different", found=None):
    """A pair whose GELU differs, recorded with some settings."""
    traces = [
        Trace(
            Path(name),
            {
                "producer": {"name": name},
                "precision": "float64",
                "case": "small",
                "subject": {"settings": settings},
            },
            {"forward/block00.mlp.fc1": X, f"forward/{TAP}": gelu(X, form)},
        )
        for name, form in (("torch", False), ("jittor", tanh))
    ]
    facts = {"error": 1e-3, "baseline_error": 0.0, "noise_floor": 0.0, "bound": 1e-15}
    more = {"candidate_noise": 0.0, "pair_error": 1e-3}
    row = Row("small", "forward", TAP, "float64", "jittor : torch", verdict, **facts, **more)
    pairs = (Evidence(*traces),)
    return Comparison([row], OneSided(), pairs, found or Found())


def of_suite():
    """The settings of one of the suite's own recordings."""
    return (
        next(case for case in CASES if case.name == "nonoverlap").config().model_dump(mode="json")
    )


@pytest.fixture
def settings():
    stored = of_suite()
    assert stored.keys() >= SECTIONS
    return stored


def test_traces_of_the_suite_get_its_causes(settings):
    result = explained_as_in_suite(comparison(settings))
    (finding,) = result.findings
    assert finding.place == f"forward/{TAP}" and "tanh" in [code for code, _ in finding.causes]
    assert "(small, float64)" in finding.text and result.begins is not None


def test_other_traces_are_explained_as_those_of_any_pair():
    (finding,) = explained_as_in_suite(comparison({"model": {}})).findings
    assert "(small, float64)" not in finding.text and "the relative error is" in finding.text


def test_undecided_rows_stay_open_and_layouts_are_findings(settings):
    result = explained_as_in_suite(comparison(settings, verdict="undecided"))
    assert result.findings == () and [row.tap for row in result.open] == [TAP]
    found = Found(layouts={f"forward/{TAP}": "channels last"})
    result = explained_as_in_suite(comparison(settings, verdict="equivalent", found=found))
    assert [each.code for each in result.findings] == ["layout"] and result.begins is None
