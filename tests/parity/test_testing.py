"""`assert_equivalent`, the comparison of a folder, and the command `parity`."""

import re

import numpy as np
import pytest

from parity import record_taps, ulp_variant
from parity.api import tell
from parity.command import main
from parity.errors import ParityError
from parity.folder import compare_folder, recorded_files
from parity.matching.declared import Declared
from parity.testing import assert_equivalent

WEIGHTS = {"w": np.random.default_rng(0).standard_normal((6, 5)).astype("f4")}
X = np.random.default_rng(1).standard_normal((7, 6)).astype("f4")
RECORDINGS = [(None, "float32"), ("ulp:1", "float32"), ("ulp:2", "float32"), (None, "float64")]


def network(weights, precision, fault=1.0):
    x, w = X.astype(precision), weights["w"].astype(precision)
    y = np.tanh(x @ w)
    return {
        "forward/y": y,
        "forward/z": y * np.dtype(precision).type(fault),
        "forward/zero": np.zeros(3, precision),
        "losses/loss": np.square(y).mean(),
    }


def write_side(folder, side, fault=1.0, kind="pass", recordings=RECORDINGS, **changes):
    """The recordings of one side, under the names that `parity run` gives them."""
    for variant, precision in recordings:
        weights = ulp_variant(WEIGHTS, int(variant[-1])) if variant else WEIGHTS
        name = "-".join([side, kind, precision, *([variant.replace(":", "")] if variant else [])])
        taps = network(weights, precision, fault)
        about = {"weights": WEIGHTS, "inputs": {"x": X}, "settings": {}, "framework": side}
        about |= {"version": "1", "precision": precision, "device": "cpu", "threads": 1}
        record_taps(folder / f"{name}.npz", taps, variant=variant, **about | changes)


@pytest.fixture
def folder(tmp_path):
    """The recordings of a right candidate."""
    write_side(tmp_path, "baseline")
    write_side(tmp_path, "candidate", recordings=RECORDINGS[:1])
    return tmp_path


@pytest.fixture
def wrong(tmp_path):
    """Those of a candidate with a fault in one tap."""
    write_side(tmp_path, "baseline")
    write_side(tmp_path, "candidate", 1.01, recordings=RECORDINGS[:1])
    return tmp_path


def failure(*arguments, **options):
    with pytest.raises(AssertionError) as caught:
        assert_equivalent(*arguments, **options)
    return str(caught.value)


def test_a_right_pair_passes(folder):
    assert_equivalent(folder)
    assert_equivalent(str(folder))
    paths = [folder / f"{side}-pass-float32.npz" for side in ("baseline", "candidate")]
    assert_equivalent(paths)
    assert_equivalent([*paths, folder / "baseline-pass-float64.npz"], only=["forward/*"])


def test_a_fault_fails_and_is_told(wrong):
    text = failure(wrong)
    assert text.startswith("The candidate is not equivalent to the baseline (candidate : baseline)")
    assert "First tap: forward/z in float32: different\n" in text
    assert "Relative error (L2): 0.01 (up to " in text and "; noise floor " in text
    assert "Greatest absolute difference: 0.009" in text and " at index (" in text
    assert "Mismatched taps: 1 / 4 (2 equivalent, 1 different, 1 vacuous)" in text
    assert "Cause: " in text and "1.01" in text


def test_only_chosen_taps_are_checked(wrong):
    assert_equivalent(wrong, only=["forward/y", "losses/*"])
    assert "forward/z" in failure(wrong, only=["losses/*", "forward/z"])
    with pytest.raises(ParityError, match="only: 'forward/absent' fits none of the 4 common taps"):
        assert_equivalent(wrong, only=["forward/y", "forward/absent"])


def test_what_is_undecided_fails(tmp_path):
    for side, fault in (("baseline", 1.0), ("candidate", 1 + 2e-6)):
        write_side(tmp_path, side, fault, recordings=RECORDINGS[:1])
    assert "First tap: forward/z in float32: undecided: the traces have no" in failure(tmp_path)
    assert_equivalent(tmp_path, allow=("vacuous", "undecided"))


def test_vacuous_taps_alone_are_no_evidence(folder):
    assert "First tap: forward/zero in float32: vacuous" in failure(folder, only=["forward/zero"])
    assert "forward/zero" in failure(folder, allow=())


def test_names_are_a_table_or_a_file(folder, tmp_path):
    changed = {f"forward/h{name[-1]}": value for name, value in network(WEIGHTS, "float32").items()}
    about = {"weights": WEIGHTS, "inputs": {"x": X}, "settings": {}, "framework": "candidate"}
    about |= {"version": "1", "precision": "float32", "device": "cpu", "threads": 1}
    record_taps(folder / "candidate-pass-float32.npz", changed, **about)
    names = tmp_path / "names.yaml"
    names.write_text("forward/h([yz]): forward/\\1\n")
    for given in (names, {r"forward/h([yz])": r"forward/\1"}):
        assert_equivalent(folder, names=given, only=["forward/[yz]"])
    names.write_text("names:\n  forward/h([yz]): forward/\\1\nlayouts: {}\n")
    assert_equivalent(folder, names=names, only=["forward/[yz]"])
    assert main(["compare", str(folder), "--names", str(names)]) == 0


def test_a_folder_holds_kinds_that_are_compared_apart(folder):
    for side in ("baseline", "candidate"):
        write_side(folder, side, kind="isolated", recordings=RECORDINGS[:1])
    assert list(recorded_files(folder)) == ["pass", "isolated"]
    comparison, traces = compare_folder(folder)
    assert len(comparison.rows) == 8 and len(comparison.pairs) == 2
    assert traces[0].path.name == "baseline-pass-float32.npz"


def test_folders_that_hold_no_pair(folder, tmp_path):
    (folder / "candidate-pass-float32.npz").unlink()
    with pytest.raises(ParityError, match=r"candidate-pass-float32\.npz: no such trace"):
        assert_equivalent(folder)
    for path in folder.glob("*.npz"):
        path.unlink()
    with pytest.raises(ParityError, match="expected traces such as baseline-pass-float32.npz"):
        assert_equivalent(folder)
    with pytest.raises(ParityError, match="no such folder"):
        assert_equivalent(tmp_path / "absent")


# --- the command


@pytest.mark.parametrize("fault, code", [(1.0, 0), (1.01, 1)])
def test_compare_a_folder(tmp_path, capsys, fault, code):
    write_side(tmp_path, "baseline")
    write_side(tmp_path, "candidate", fault, recordings=RECORDINGS[:1])
    out = tmp_path / "report"
    assert main(["compare", str(tmp_path), "--out", str(out)]) == code
    assert "verdict: " in capsys.readouterr().out and (out / "parity.json").is_file()


def test_show_a_trace(folder, capsys):
    path = str(folder / "baseline-pass-float64.npz")
    assert main(["show", path]) == 0
    text = capsys.readouterr().out
    assert "producer: name baseline" in text and "4 taps in 2 stages:" in text
    assert "forward/y     float64  7 x 5 " in text and "losses/loss   float64  number" in text
    assert main(["show", path, "--stage", "losses"]) == 0
    assert "forward/y" not in capsys.readouterr().out
    assert main(["show", path, "--tap", "forward/zero"]) == 0
    assert "forward/zero: float64, shape (3,), norm 0\n[0. 0. 0.]\n" in capsys.readouterr().out
    for words in (["--tap", "forward/one"], ["--stage", "backward"]):
        assert main(["show", path, *words]) == 2
        assert "expected one" in capsys.readouterr().err


def test_a_pattern_that_fits_nothing_is_said(tmp_path, capsys):
    write_side(tmp_path, "baseline")
    write_side(tmp_path, "candidate", recordings=RECORDINGS[:1])
    patterns = {"nothing": "forward/y", "forward/[yz].*": r"\g<0>", "forward/z": "forward/one"}
    names = Declared(patterns, {"no.*": "(in, out)"})
    comparison, traces = compare_folder(tmp_path, names)
    assert tell(comparison, traces) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note")]
    end = "fits no tap of the candidate, or an earlier pattern fits first; mend it, or take it out"
    starts = "names: nothing", "names: forward/z", "layouts: no.*"
    assert lines == [f"note: {start} has no effect: it {end}" for start in starts]


def test_show_a_folder(folder, capsys):
    np.savez(folder / "inputs.npz", x=np.zeros(3))  # no trace
    assert main(["show", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len([*folder.glob("*.npz")]) - 1
    assert re.search(r"baseline-pass-float32.npz +baseline +float32 +4 taps +2 stages", lines[1])
    assert lines[-1] == f"to see one: parity show {folder / 'baseline-pass-float32.npz'}"
    (folder / "damaged.npz").write_bytes(b"PK")
    assert main(["show", str(folder)]) == 2
    again = capsys.readouterr()
    assert re.search(r"damaged.npz +cannot be read", again.out) and "4 taps  2 st" in again.out
    assert "damaged.npz" in again.err
    (folder / "damaged.npz").unlink()
    assert main(["show", str(folder), "--stage", "forward"]) == 2
    assert "for one trace" in capsys.readouterr().err
    (folder / "empty").mkdir()
    assert main(["show", str(folder / "empty")]) == 2
    assert "expected traces, files that end in .npz, found none" in capsys.readouterr().err


def test_a_sketch_is_shown_as_one(folder, capsys):
    write_side(folder, "baseline", recordings=RECORDINGS[:1], sketch_above=10)
    path = str(folder / "baseline-pass-float32.npz")
    assert main(["show", path]) == 0
    assert "sketch of 4096 numbers" in capsys.readouterr().out
    assert main(["show", path, "--tap", "forward/y"]) == 0
    assert "a sketch: largest 0.9" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words, text",
    [
        (["compare", "absent.npz", "b.npz"], "absent.npz: no such trace"),
        (["run", "absent.py"], "absent.py: no such pair file"),
        (["run", "absent.py", "--python", "baseline"], "expected SIDE=PATH"),
    ],
)
def test_input_that_is_refused(words, text, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and text in error
