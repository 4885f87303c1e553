"""An ONNX file against the PyTorch model that it was exported from, and with planted faults."""

import importlib.util
from pathlib import Path

import pytest

from parity.api import explained
from parity.diagnose.limits import limits_of
from parity.errors import ParityError
from parity.folder import compare_folder
from parity.recording.processes.runner import record_pair

ROOT = Path(__file__).resolve().parents[3]
EXAMPLE = ROOT / "examples/parity_onnx"
NEEDED = ("torch", "onnx", "onnxscript", "onnxruntime")
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")

# A file in which the batch norms are nodes of their own, so that drawn weights can be loaded.
PAIR = """
import sys
sys.path.insert(0, {example!r})
import warnings
from parity import Pair, Side, normal

SHAPE = (2, 3, 6, 9)

def baseline():
    from net import Net
    return Net()

def candidate():
    import onnx, torch
    from net import Net
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(Net().eval(), (torch.zeros(SHAPE),), dynamo=True,
                                    opset_version=18, optimize=False, verbose=False)
    proto = program.model_proto
    nodes = {{}}
    for node in proto.graph.node:
        nodes.setdefault(node.op_type, []).append(node)
    def change(node, name, value):
        kept = [a for a in node.attribute if a.name != name]
        del node.attribute[:]
        node.attribute.extend([*kept, onnx.helper.make_attribute(name, value)])
    {fault}
    return proto

pair = Pair(Side("torch", baseline), Side("onnx", candidate), {{"x": normal(*SHAPE)}},
            float64=False, variants=2, modes=("eval",))
"""


def compared(folder, fault="pass"):
    text = PAIR.format(example=str(EXAMPLE), fault=fault)
    (folder / "pair.py").write_text(text, encoding="utf-8")
    recorded = record_pair(folder / "pair.py", folder / "out", say=lambda line: None)
    return recorded, compare_folder(folder / "out")[0]


def different(comparison):
    return [f"{r.stage}/{r.tap}" for r in comparison.rows if r.verdict == "different"]


def test_the_example_is_equivalent_with_folded_batch_norms(tmp_path):
    record_pair(EXAMPLE / "pair.py", tmp_path, say=lambda line: None)
    comparison, _ = compare_folder(tmp_path)
    assert comparison.verdict == "equivalent"
    taps = {f"{row.stage}/{row.tap}" for row in comparison.rows}
    assert {"forward/norm1", "forward/norm2", "forward/head", "forward/output"} <= taps
    # The convolutions have other weights and another function; no tap of theirs may be compared.
    assert not {"forward/conv1", "parameters/conv1.weight", "isolated forward/norm1"} & taps
    assert any("records no gradients" in limit for limit in limits_of(comparison.pairs, {}))


def test_drawn_weights_are_loaded_into_a_file(tmp_path):
    recorded, comparison = compared(tmp_path)
    assert comparison.verdict == "equivalent"
    taps = {f"{row.stage}/{row.tap}" for row in comparison.rows}
    assert {"parameters/norm1.running_var", "forward/conv1", "isolated forward/norm2"} <= taps


def test_an_epsilon_is_found_and_named(tmp_path):
    fault = 'change(nodes["BatchNormalization"][1], "epsilon", 1e-3)'
    _, comparison = compared(tmp_path, fault)
    found = different(comparison)
    assert found[0] == "forward/norm2"
    assert [tap for tap in found if tap.startswith("isolated")] == ["isolated forward/norm2"]
    text = " ".join(finding.text for finding in explained(comparison).findings)
    assert "0.001" in text and "norm2" in text


def test_padding_at_the_other_end_is_found(tmp_path):
    fault = 'change(nodes["Conv"][0], "pads", [0, 0, 2, 2])'
    _, comparison = compared(tmp_path, fault)
    assert different(comparison)[0] == "forward/conv1"
    text = " ".join(finding.text for finding in explained(comparison).findings)
    assert "padding [[0, 2], [0, 2]] instead of [1, 1]" in text


def test_folded_weights_are_not_replaced_by_drawn_ones(tmp_path):
    text = (EXAMPLE / "pair.py").read_text(encoding="utf-8").replace(', weights="built"', "")
    (tmp_path / "net.py").write_bytes((EXAMPLE / "net.py").read_bytes())
    (tmp_path / "pair.py").write_text(text, encoding="utf-8")
    with pytest.raises(ParityError, match=r'the file has no .*norm1\.weight.*weights="built"'):
        record_pair(tmp_path / "pair.py", tmp_path / "out", say=lambda line: None)


@pytest.mark.parametrize("built", ["b'no model'", "'missing.onnx'", "3"])
def test_what_is_no_onnx_model_is_an_error(tmp_path, built):
    with pytest.raises(ParityError, match="candidate \\(onnx\\): build: expected"):
        compared(tmp_path, f"return {built}")
