"""Outputs that only one side returns are said once, with or without a loss that differs."""

from types import SimpleNamespace

import pytest

from parity.comparison.verdict import OneSided, Row
from parity.diagnose.finding import Finding
from parity.diagnose.outputs import (
    auxiliary_parameters,
    fault_of_loss,
    output_differences,
    output_findings,
    with_auxiliary,
)


def row(stage, tap):
    return Row("net", stage, tap, "float32", "b : a", "different", 1.0, 0, 0, 0, 0, 1.0)


def one_sided(*names):
    return OneSided(tuple(names))


def test_outputs_are_told_by_mode_and_side():
    taps = [f"training forward/output.{i}" for i in range(1, 6)]
    found = output_differences(OneSided(tuple(taps), ("forward/output.logits", "forward/outputs")))
    assert found == {
        True: "the candidate does not return output.1, output.2, output.3 and 2 more",
        False: "the candidate also returns output.logits",
    }
    assert output_differences(one_sided("forward/output_layer", "gradients/output.weight")) == {}
    assert output_differences(one_sided("isolated forward/output.1")) == {}


@pytest.mark.parametrize(
    ("stages", "beginning"),
    [
        (["forward", "training forward"], "the candidate does not return output.1"),
        (["training forward"], "in training, the candidate does not return output.1"),
    ],
)
def test_without_a_loss_outputs_are_a_finding(stages, beginning):
    outputs = output_differences(one_sided(*[f"{stage}/output.1" for stage in stages]))
    (finding,) = output_findings([row("forward", "output")], outputs, [])
    assert finding.text == beginning and finding.kind == "other structure"


def test_a_loss_tells_it_once():
    outputs = output_differences(one_sided("training forward/output.1"))
    fault = fault_of_loss(outputs[True])
    assert not list(output_findings([row("training losses", "loss")], outputs, [fault]))


def test_gradients_of_auxiliary_heads_follow():
    taps = ["gradients/head", "training gradients/head", "training gradients/aux"]
    assert auxiliary_parameters(SimpleNamespace(taps=dict.fromkeys(taps))) == {"aux"}
    only_training = dict.fromkeys(taps[1:])  # then nothing says which are auxiliary
    assert auxiliary_parameters(SimpleNamespace(taps=only_training)) == set()
    finding = Finding("net", "b : a", "float32", "training losses", "loss", "forward")
    missing = one_sided("training gradients/aux", "training gradients/other")
    unchanged = with_auxiliary(finding, {"aux"}, missing)
    assert unchanged == (finding, missing)
    told, left = with_auxiliary(
        Finding("net", "b : a", "float32", "x", "y", "forward", (("outputs", ""),)),
        {"aux"},
        missing,
    )
    assert told.explained == ("training gradients/aux",)
    assert left.baseline == ("training gradients/other",)
