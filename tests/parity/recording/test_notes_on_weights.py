"""Weights of one side alone are noted; counters are not."""

from parity import Pair, Side
from parity.matching.declared import Declared
from parity.recording.weights import candidate_names


def test_counters_without_a_partner_are_not_noted():
    side = Side("torch", lambda: None)
    pair = Pair(baseline=side, candidate=side, inputs={})
    both = [["fc.weight", [3, 4], "<f4", "parameter"]]
    extra = [["fc.bias", [3], "<f4", "parameter"], ["bn.num_batches_tracked", [], "<i8", "buffer"]]
    names, notes = candidate_names(pair, both + extra, both, Declared())
    assert names == {"fc.weight": "fc.weight"}
    assert notes == ["weights only in the baseline: fc.bias"]
    assert candidate_names(pair, both + extra[1:], both, Declared())[1] == []
