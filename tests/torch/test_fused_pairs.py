"""Fused query, key and value are loaded as `names` says; a side without float64 has an answer."""

import re

import pytest

pytest.importorskip("torch")

from parity.errors import ParityError
from parity.folder import compare_folder
from parity.recording.processes.runner import record_pair
from parity.running import record_and_compare

PAIR = """
from parity import Pair, Side, normal


def make(fused, short=False):
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            for name in ["qkv"] if fused else ["q", "k", "v"]:
                setattr(self, name, nn.Linear(8, 24 if fused else 8))
            self.out = nn.Linear(8, 5)

        def forward(self, x):
            if short:
                x = x @ torch.eye(8, dtype=torch.float32)
            q, k, v = self.qkv(x).chunk(3, -1) if fused else (self.q(x), self.k(x), self.v(x))
            return self.out((q @ k.transpose(-1, -2)).softmax(-1) @ v)

    return Net()


names = {names}
pair = Pair(
    Side("torch", lambda: make({first})),
    Side("torch", lambda: make({second})),
    inputs={{"x": normal(3, 6, 8)}},
    names=names,
)
"""


def pair_file(folder, names, first, second):
    path = folder / "pair.py"
    path.write_text(PAIR.format(names=names, first=first, second=second))
    return path


@pytest.mark.parametrize(("first", "second"), [("False", "True"), ("True", "False")])
def test_the_advised_names_load_fused_weights(first, second, tmp_path):
    path = pair_file(tmp_path, {}, first, second)
    with pytest.raises(ParityError, match="add to the pair file: names=") as caught:
        record_pair(path, tmp_path / "out", say=lambda line: None)
    advice = re.search(r"names=(\{.*\})", str(caught.value)).group(1)
    path = pair_file(tmp_path, advice, first, second)
    comparison, _, _ = record_and_compare(path, tmp_path / "out")
    assert comparison.verdict == "equivalent"
    taps = {f"{row.stage}/{row.tap}" for row in comparison.rows}
    assert any("qkv" in tap and tap.startswith("gradients/") for tap in taps) or any(
        " + " in tap and tap.startswith("gradients/") for tap in taps
    )
    again, _ = compare_folder(tmp_path / "out")  # with the names of the pair file
    assert {f"{row.stage}/{row.tap}" for row in again.rows} == taps


ATTENTION = """
from parity import Pair, Side, normal


def make(fused):
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            if fused:
                self.attn = nn.MultiheadAttention(8, 2, batch_first=True)
            else:
                self.q, self.k, self.v, self.o = (nn.Linear(8, 8) for _ in range(4))

        def forward(self, x):
            if fused:
                return self.attn(x, x, x)[0]
            q, k, v = (f(x).unflatten(-1, (2, 4)).transpose(1, 2) for f in (self.q, self.k, self.v))
            y = (q @ k.transpose(-1, -2) / 2).softmax(-1) @ v
            return self.o(y.transpose(1, 2).flatten(2))

    return Net()


sides = [Side("torch", lambda: make(True)), Side("torch", lambda: make(False))]
pair = Pair(*sides[::{order}], inputs={{"x": normal(3, 6, 8)}}, names={names})
"""


@pytest.mark.parametrize("order", [1, -1])
def test_the_advised_names_load_the_projections_of_torchs_attention(order, tmp_path):
    path = tmp_path / "pair.py"
    path.write_text(ATTENTION.format(order=order, names={}))
    with pytest.raises(ParityError, match="add to the pair file: names=") as caught:
        record_pair(path, tmp_path / "out", say=lambda line: None)
    advice = re.search(r"names=(\{.*\})", str(caught.value)).group(1)
    path.write_text(ATTENTION.format(order=order, names=advice))
    comparison, _, _ = record_and_compare(path, tmp_path / "out")
    assert comparison.verdict == "equivalent"
    taps = {f"{row.stage}/{row.tap}" for row in comparison.rows}
    assert len([tap for tap in taps if tap.startswith("gradients/") and "in_proj" in tap]) == (
        6 if order == 1 else 0
    )


@pytest.mark.parametrize("short", ["first", "second"])
def test_a_side_that_fails_in_float64_has_an_answer_in_float32(short, tmp_path):
    sides = {"first": "False", "second": "False"} | {short: "False, True"}
    path = pair_file(tmp_path, {}, sides["first"], sides["second"])
    comparison, _, notes = record_and_compare(path, tmp_path / "out")
    assert {row.precision for row in comparison.rows} == {"float32"}
    assert any("the answer has no float64 of this side" in note for note in notes)
    assert comparison.verdict == "equivalent"
