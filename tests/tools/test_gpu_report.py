"""The report page of a GPU run: every number comes from a file of the stages."""

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

pytest.importorskip("jinja2", reason="the report extra is not installed")
SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "gpu" / "report.py"

STAGE = {
    "pair": "jittor : torch", "precision": "float32", "stage": "forward", "taps": 42, "case": "odd",
    "tap": "block00|x", "error": 1.5e-7, "bound": 3e-6, "ratio": None, "verdict": "equivalent",
}  # fmt: skip
PARITY = {
    "format": "parity-report/3",
    "sentence": "equivalent: all 42 taps are equivalent.",
    "environment": {"torch": {"version": "9.9", "device": "A device"}, "date": "today"},
    "stages": [STAGE],
    "rows": [{"tap": "many"}] * 1000,
}
SPREAD = {"median": 0.25, "least": 0.2, "most": 0.5}
SUMMARY = {
    "seconds": SPREAD, "ratio": SPREAD, "memory_ratio": 0.5, "images_per_second": 64.0,
    "utilisation": 0.513,
}  # fmt: skip
MEASURED = {
    "subject": "torch", "work": "train", "batch": 16, "failed": "", "summary": SUMMARY,
    "peak": 3 * 2**20, "first": 1.25, "device": {"device": "A device"},
}  # fmt: skip
BENCH = {
    "format": "bench/1",
    "measurements": [
        MEASURED | {"subject": "jittor", "failed": "no memory", "device": {}},
        MEASURED,
    ],
    "linearity": {"torch": {"16": 0.031}, "jittor": {}},
}
ACCURACY = {
    "margin": 0.01,
    "verdict": "equivalent",
    "baseline": {"backends": ["torch", "torch"], "accuracies": [0.5, 0.6]},
    "candidate": {"backends": ["jittor", "jittor"], "accuracies": [0.51, 0.59]},
    "images": {"difference": 0.001, "interval": [-0.002, 0.004], "verdict": "equivalent"},
    "seeds": None,
}
PAGE = "# A report\n\n## Results\n\n| run |\n\n## Curves\n\nx\n\n## Over seeds\n\n| 9.87 ± 0.01 |\n"


@pytest.fixture
def report(tmp_path):
    """Pack stages given as {name: {file: content}}, and make the report; return its folder."""

    def make(stages, status=0):
        summary = []
        for name, files in stages.items():
            for file, content in files.items():
                path = tmp_path / "stages" / name / file
                path.parent.mkdir(parents=True, exist_ok=True)
                text = content if isinstance(content, str) else json.dumps(content)
                path.write_text(text, encoding="utf-8")
            with tarfile.open(tmp_path / f"stages/{name}.tar.gz", "w:gz") as archive:
                archive.add(tmp_path / "stages" / name, name)
            summary.append({"name": name, "status": status, "seconds": 1.5})
        (tmp_path / "stages/summary.json").write_text(json.dumps(summary))
        command = [sys.executable, SCRIPT, tmp_path / "stages", tmp_path / "report"]
        subprocess.run(command, check=True)
        return tmp_path / "report"

    return make


def test_numbers_of_every_kind(report):
    folder = report(
        {
            "parity": {"float32/parity.json": PARITY, "log.txt": "all of 16608\nlast line"},
            "bench-methods": {"overlap.json": BENCH},
            "accuracy": {"accuracy.json": ACCURACY, "report/report.md": PAGE},
        }
    )
    page = (folder / "README.md").read_text(encoding="utf-8")
    for text in (
        "| [parity](#parity) | 0 | 1.5 |",
        "parity --no-float64 --out",  # the command, from the list of stages
        "last line",
        "**float32/parity.json**: equivalent: all 42 taps are equivalent.",
        "torch 9.9 on A device.",
        "| jittor : torch | float32 | forward | 42 | equivalent | odd block00\\|x | 1.5e-07 |",
        "**overlap.json**, A device, train;",
        "| jittor | 16 | no memory | – | – | – | – | – | – |",
        "| torch | 16 | 0.2500 (0.2000 to 0.5000) | 0.25 (0.20 to 0.50) | 3 | 0.50 | 64.0 |",
        "| 51.3% | 1.2 |",
        "torch 16: +3.1 %",
        "| candidate | jittor | 51.00, 59.00 | – | – |",
        "| these checkpoints | – | +0.10 | -0.20 .. +0.40 | equivalent |",
        "| 9.87 ± 0.01 |",
    ):
        assert text in page, text
    assert "all of 16608" not in page  # of a stage that succeeded, only the last line is shown
    assert "this training" not in page
    kept = json.loads((folder / "parity/float32/parity.json").read_text())
    assert kept == {key: value for key, value in PARITY.items() if key != "rows"}
    assert json.loads((folder / "bench-methods/overlap.json").read_text()) == BENCH


def test_no_path_of_the_machine_is_shown(report):
    log = "python: /opt/venv/bin/python\n/some/where/out/x.json -> data/weights/x.npz, see https://a.b/c/d"
    folder = report({"doctor": {"log.txt": log, "facts.json": {"path": "/home/me/runs/torch-1"}}})
    page = (folder / "README.md").read_text(encoding="utf-8")
    assert "python: python\nx.json -> data/weights/x.npz, see https://a.b/c/d" in page
    assert (folder / "doctor/facts.json").read_text() == '{"path": "torch-1"}'


def test_a_failed_stage_shows_its_end_and_an_older_report_is_replaced(report, tmp_path):
    (tmp_path / "report/old").mkdir(parents=True)
    (tmp_path / "report/README.md").write_text("# On the GPU\n\nof yesterday")
    folder = report({"one": {"log.txt": "\n".join(map(str, range(100)))}}, status="timeout")
    page = (folder / "README.md").read_text(encoding="utf-8")
    assert "ended with timeout" in page and "\n88\n" in page and "\n87\n" not in page
    assert not (folder / "old").exists()


def test_without_stages_it_says_what_it_expects(tmp_path):
    command = [sys.executable, SCRIPT, tmp_path, tmp_path / "report"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "expected the OUT of tools/gpu/unattended.py" in done.stderr


def test_a_folder_with_other_files_is_left_alone(report, tmp_path):
    (tmp_path / "report").mkdir()
    (tmp_path / "report/precious.md").touch()
    with pytest.raises(subprocess.CalledProcessError):
        report({"one": {"log.txt": "x"}})
    assert (tmp_path / "report/precious.md").exists()
