"""A recording is used again only if nothing that it depends on has changed."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from test_running_pairs import run, written

from parity import compare, read_trace
from parity.errors import ParityError
from parity.recording.depends import UsedFiles, changed_files
from parity.recording.processes import runner as runner_module

SMALL = "float64=False, variants=0"


def verdicts(recorded):
    return {row.verdict for row in compare(recorded.traces("pass"))}


def unchanged(lines):
    return [line for line in lines if line.endswith("unchanged")]


def test_source_on_the_path_counts(tmp_path, monkeypatch):
    """The candidate's module is not beside the pair file, as with src/ or an editable install."""
    source, pairs = tmp_path / "src/of_candidate.py", tmp_path / "pairs"
    source.parent.mkdir()
    pairs.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(source.parent), prepend=":")
    source.write_text("slope = 0.0")
    path = written(pairs, "from of_candidate import slope; return network(-1, slope)", SMALL)
    recorded, _ = run(path, tmp_path / "out")
    assert verdicts(recorded) <= {"equivalent", "vacuous"}
    source.write_text("slope = 0.5")
    recorded, lines = run(path, tmp_path / "out")
    assert "different" in verdicts(recorded) and not unchanged(lines)


def test_a_module_that_only_the_pass_imports_counts(tmp_path):
    """A model may import at its first call, after the key was made."""
    lazy = tmp_path / "lazy_part.py"
    lazy.write_text("factor = 1.0")
    code = (
        "f, w = network(-1); "
        "g = lambda weights, inputs: {k: v * __import__('lazy_part').factor "
        "for k, v in f(weights, inputs).items()}; return g, w"
    )
    path = written(tmp_path, code, SMALL)
    run(path, tmp_path / "out")
    lazy.write_text("factor = 2.0")
    recorded, _ = run(path, tmp_path / "out")
    assert "different" in verdicts(recorded)


@pytest.mark.parametrize("weights", ["'built'", "None"])
def test_a_file_that_a_builder_reads_counts_by_what_it_makes_of_the_model(tmp_path, weights):
    """Weights, and with drawn weights a table that is not drawn."""
    file = tmp_path / "ck.npy"
    code = (
        f"f, _ = network(-1); k = np.load({str(file)!r}); t = k.astype('i8'); "
        "h = lambda w, i: {n: v + w['t'] for n, v in f(w, i).items()}; "
        "return h, {'w': k[:, None] * np.ones((6, 4)), 'bias': np.zeros(4), 't': t[:1]}"
    )
    more = f"weights={weights}, {SMALL}"
    taps = []
    for first in (1.0, 3.0):
        np.save(file, np.array([first, 1, 2, 1, 2, 1]))
        recorded, _ = run(written(tmp_path, code, more), tmp_path / "out")
        taps.append(read_trace(recorded.files["candidate-pass-float32"]).taps["forward/z"])
    assert not np.array_equal(*taps)


def test_a_weights_file_counts(tmp_path):
    path = written(tmp_path, more=f"weights='w.npz', {SMALL}")
    taps = []
    for scale in (1, 2):
        np.savez(tmp_path / "w.npz", w=scale * np.ones((6, 4)), bias=np.zeros(4))
        recorded, lines = run(path, tmp_path / "out")
        taps.append(read_trace(recorded.files["baseline-pass-float32"]).taps["forward/z"])
    assert not np.array_equal(*taps) and not unchanged(lines)


def test_this_program_counts(tmp_path, monkeypatch):
    path = written(tmp_path, more=SMALL)
    run(path, tmp_path / "out")
    _, lines = run(path, tmp_path / "out")
    assert len(unchanged(lines)) == 2
    monkeypatch.setattr(runner_module, "own_source", lambda: "another")
    _, lines = run(path, tmp_path / "out")
    assert not unchanged(lines)


def test_a_file_that_changes_while_it_is_recorded_is_told(tmp_path):
    """The float64 process would import the new text."""
    beside = tmp_path / "beside.py"
    beside.write_text("slope = 0.0")
    code = (
        "import beside; "
        f"os.path.exists({str(tmp_path / 'once')!r}) or open({str(beside)!r}, 'a').write('#'); "
        "return network(-1, beside.slope)"
    )
    with pytest.raises(ParityError, match=r"beside.py has changed while it was recorded; run"):
        run(written(tmp_path, code), tmp_path / "out")
    (tmp_path / "once").touch()
    run(written(tmp_path, code), tmp_path / "out")


INSTALLED = """
import sys
from parity.recording.depends import UsedFiles
import dist_one, loose
used = UsedFiles()
assert not [path for path in used.digests() if "dist_one" in path], used.digests()
assert [path for path in used.digests() if path.endswith("loose.py")]
print(used.versions()["dist-one"])
"""


def test_an_installed_distribution_counts_by_version_and_files(tmp_path):
    """Also one that was built again under the same version; a loose file counts by its text."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    (site,) = (tmp_path / "env/lib").glob("python*/site-packages")
    here = [str(Path(np.__file__).parents[1]), str(Path(__file__).resolve().parents[3])]
    (site / "more.pth").write_text("\n".join(here))
    info = site / "dist_one-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: dist-one\nVersion: 1.0\n")
    (site / "loose.py").touch()
    said = []
    for text in ("a = 1", "a = 2"):
        (site / "dist_one.py").write_text(text)
        (info / "RECORD").write_text(f"dist_one.py,sha256={hash(text)},5\n")
        command = [tmp_path / "env/bin/python", "-c", INSTALLED]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
    assert all(text.startswith("1.0 ") for text in said) and said[0] != said[1]


def test_what_jittor_compiles_for_itself_does_not_count(tmp_path, monkeypatch):
    """It may be compiled again, into other bytes, from the same source."""
    for number, folder in enumerate((".cache/jittor/jt1", "mine")):
        path = tmp_path / folder / "core.so"
        path.parent.mkdir(parents=True)
        path.touch()
        module = ModuleType(f"core{number}")
        module.__file__ = str(path)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    inside = [path for path in UsedFiles().digests() if path.startswith(str(tmp_path))]
    assert inside == [str(tmp_path / "mine/core.so")]


def test_a_file_that_is_missing_has_changed(tmp_path):
    path = tmp_path / "a.py"
    path.write_text("a = 1")
    digests = UsedFiles().digests([path])
    assert str(path) in digests and not changed_files({str(path): digests[str(path)]})
    path.unlink()
    assert changed_files({str(path): digests[str(path)]}) == [str(path)]


READS = """
import numpy as np
from pathlib import Path
from parity.recording.frameworks.numpy.adapter import NumpyAdapter

class Reads(NumpyAdapter):
    def finish_build(self, model):
        text = model if isinstance(model, bytes) else Path(model).read_bytes()
        scale = float(text)
        forward = lambda weights, inputs: {"z": scale * inputs["x"] @ weights["w"]}
        return super().finish_build((forward, {"w": np.zeros((6, 4))}))
"""


@pytest.mark.parametrize("built", ["'net.txt'", "open('net.txt', 'rb').read()"])
def test_what_a_builder_returns_counts(tmp_path, built):
    """As with an .onnx file that is exported again."""
    (tmp_path / "reads.py").write_text(READS)
    path = written(tmp_path, f"return {built}", SMALL)
    path.write_text(path.read_text().replace('Side("numpy", cand', 'Side("reads:Reads", cand'))
    taps = []
    for text in ("1", "2"):
        (tmp_path / "net.txt").write_text(text)
        recorded, _ = run(path, tmp_path / "out")
        taps.append(read_trace(recorded.files["candidate-pass-float32"]).taps["forward/z"])
    assert not np.array_equal(*taps)
