"""`transfg report`: the verdicts of `parity` on the page, and the options."""

import sys

import pytest

pytest.importorskip("matplotlib", reason="the report extra is not installed")
pytest.importorskip("jinja2", reason="the report extra is not installed")

import numpy as np
from run_folders import write_run

from transfg import app
from transfg.report import verdict

IMAGES = [f"{k}.jpg" for k in range(2000)]


def side(folder, backend, seeds, wrong):
    """Runs of a backend on 2000 images; the first `wrong` are taken for another class."""
    labels = np.arange(2000) % 4
    guesses = labels.copy()
    guesses[:wrong] = (labels[:wrong] + 1) % 4
    return [
        write_run(
            folder, f"{backend}{seed}", f"run.seed={seed}", backend=backend, images=IMAGES,
            labels=labels, guesses=guesses, top1=1 - wrong / 2000,
        )
        for seed in seeds
    ]  # fmt: skip


def test_a_verdict_is_that_of_parity(tmp_path):
    left = side(tmp_path, "torch", (1, 2, 3), 200)
    same = verdict(left, side(tmp_path / "same", "jittor", (1, 2, 3), 200), 1.0)
    assert same[0] == "3" and same.difference == "+0.00" and same.verdict == "equivalent"
    assert same.needed == ""
    worse = verdict(left, side(tmp_path / "worse", "jittor", (1, 2, 3), 300), 1.0)
    assert (worse.difference, worse.verdict) == ("-5.00", "different")
    few = verdict(left[:2], side(tmp_path / "few", "jittor", (1, 2), 200), 1.0)
    assert few.verdict == "undecided" and few.needed == "3 seeds a side"


def test_a_pair_that_cannot_be_judged_has_the_reason(tmp_path):
    left, right = (side(tmp_path, backend, (1,), 10) for backend in ("torch", "jittor"))
    (right[0] / "predictions.csv").unlink()
    found = verdict(left, right, 1.0)
    assert found.verdict.startswith("none: ") and "expected the predictions" in found.verdict


def test_the_command(tmp_path, monkeypatch, capsys):
    runs = [path for backend in ("torch", "jittor")
            for path in side(tmp_path / "runs", backend, (1, 2, 3), 200)]  # fmt: skip
    out = tmp_path / "out"
    arguments = ["report", *map(str, runs), "--against", "published", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["transfg", *arguments, "--margin", "0.1"])
    with pytest.raises(SystemExit) as ended:
        app.run()
    assert not ended.value.code
    assert capsys.readouterr().out.strip() == str(out / "report.html")
    text = (out / "report.md").read_text()
    assert "Equivalent within 0.1 points" in text and "| undecided |" in text
    for wrong, message in ((["--against", "paper"], "expected one of published"),):
        monkeypatch.setattr(sys, "argv", ["transfg", *arguments, *wrong])
        with pytest.raises(SystemExit) as ended:
            app.run()
        assert ended.value.code == 2
        assert message in capsys.readouterr().err
