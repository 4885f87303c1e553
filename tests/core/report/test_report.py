"""Reports of synthetic runs: the numbers are there, the page stands alone, the bytes repeat."""

import json
import os
import re
import shutil
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="the report extra is not installed")
pytest.importorskip("jinja2", reason="the report extra is not installed")

from PIL import Image
from run_folders import make_run

from transfg_core import fonts
from transfg_core.checkpoints.weight_file import Origin
from transfg_core.config.loading import load_config
from transfg_core.errors import UserError
from transfg_core.report.page import Extras, load_run, write_report
from transfg_core.report.plots import Curve, Point, draw_curves
from transfg_core.run.comparison import agreement
from transfg_core.run.folder import RunFolder
from transfg_core.run.reading import load_runs

PARITY = {
    "format": "parity-report/3",
    "verdict": "undecided",
    "sentence": "undecided: 1063 taps: 1062 equivalent, 0 different, 1 undecided.",
    "stages": [
        {
            "pair": "jittor : torch",
            "precision": "float32",
            "stage": stage,
            "taps": taps,
            "case": "overlap|odd",
            "tap": tap,
            "error": error,
            "noise_floor": 1e-6,
            "bound": 5e-6,
            "ratio": ratio,
            "verdict": verdict,
        }
        for stage, taps, tap, error, ratio, verdict in (
            ("forward", 1000, "block00", None, None, "equivalent"),
            ("gradients", 42, "grad/part_norm.bias", 3.21e-7, 0.0642, "undecided"),
            ("updates", 21, "step/head.bias", 4e-6, 0.8, "equivalent"),
        )
    ],
    "environment": {"jittor": {"version": "1.3", "device": "Some <processor>"}, "date": "today"},
}


@pytest.fixture(scope="module")
def twins(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return [make_run(folder, "one", "torch"), make_run(folder, "two", "jittor", shift=1e-4)]


@pytest.fixture(scope="module")
def page(twins, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    parity, picture = folder / "parity.json", folder / "picture.png"
    parity.write_text(json.dumps(PARITY))
    Image.new("RGB", (4, 4)).save(picture)
    write_report(twins, folder / "out", Extras(parity, picture))
    return folder / "out"


class Opened(HTMLParser):
    """Checks that tags close in order; collects cells and references."""

    def __init__(self, text):
        super().__init__()
        self.stack, self.cells, self.references, self.tags = [], [], [], set()
        self.feed(text)
        self.close()
        assert not self.stack, self.stack

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.references += [
            value for key, value in attributes if key in ("src", "href", "xlink:href")
        ]
        if tag not in ("meta", "img", "br", "link"):
            self.stack.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in ("meta", "img", "br", "link"):
            self.stack.pop()

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if self.stack and self.stack[-1] in ("td", "th"):
            self.cells.append(data)


EXPECTED = (
    "one torch 81.25 98.76 95.00 0.4321 67.89 12.34 123.4 300 1:02:05 81.26 1063 "
    "grad/part_norm.bias 3.21e-07 0.0642 +12.50 87.50"
).split()


def test_html_stands_alone_and_holds_the_numbers(page):
    opened = Opened((page / "report.html").read_text())
    assert {*EXPECTED, "40 of 40", "7 of 8", "a <processor>", "undecided"} <= set(opened.cells)
    assert "jittor 1.3 on Some &lt;processor&gt;." in (page / "report.html").read_text()
    assert "block00" not in opened.cells  # one line for each pair and precision, the worst
    assert "script" not in opened.tags and "link" not in opened.tags
    assert all(one.startswith(("#", "data:")) for one in opened.references)
    assert opened.tags >= {"svg", "img"}


def test_markdown_holds_the_numbers_in_whole_tables(page):
    text = (page / "report.md").read_text()
    for number in EXPECTED:
        assert f"| {number} |" in text, number
    assert PARITY["sentence"] in text and "overlap\\|odd" in text
    assert "transfg train 'run.name=a b'" in text
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1 and "---" in table.splitlines()[1]
    for name in re.findall(r"!\[.*\]\((.*)\)", text):
        assert (page / name).exists()


def test_same_runs_same_bytes(page, twins, tmp_path):
    parity, picture = page.parent / "parity.json", page.parent / "picture.png"
    write_report(twins, tmp_path, Extras(parity, picture))
    names = sorted(path.relative_to(page).as_posix() for path in page.rglob("*.*"))
    assert {"curves.svg", "parts.png", "report.html", "report.md", "tables/runs.csv"} < {*names}
    for name in names:
        assert (tmp_path / name).read_bytes() == (page / name).read_bytes(), name


def test_panels(twins, tmp_path):
    """The difference has a panel where two backends ran one configuration."""
    other = make_run(tmp_path, "three", "jittor", overrides=["optim.lr=0.5"], finish=False)
    for runs, panels in ((twins, 3), (twins[:1], 2), ([twins[0], other], 2), ([*twins, other], 3)):
        write_report(runs, tmp_path / "out")
        svg = (tmp_path / "out" / "curves.svg").read_text()
        assert len(re.findall(r'id="axes_\d+"', svg)) == panels
    text = (tmp_path / "out" / "report.md").read_text()
    assert "**three (jittor)** is unfinished at update 40 of 40" in text
    assert "| optim.lr | 0.5 | three (jittor) |" in text


def level(*values):
    """A curve without scatter, at updates from 1."""
    return {k: Point(value, value, value) for k, value in enumerate(values, start=1)}


def test_names_of_runs_are_drawn_in_any_script(tmp_path, monkeypatch):
    """matplotlib warns about a missing glyph, which here is an error; no name is a formula."""
    monkeypatch.setattr(fonts, "system_font", lambda char: None)
    fonts.font_of.cache_clear()
    names = ["麻雀", "喜鹊", "Воробей", "$x$ 鸟", "$\\frac", "นก"]
    curves = [Curve(name, level(2.0, 1.0), level(50.0), k, 0) for k, name in enumerate(names)]
    svg = draw_curves([curves], "test")
    assert len(set(re.findall(r'id="DroidSansFallback-([0-9a-f]+)"', svg))) == len("麻雀喜鹊鸟")
    assert svg == draw_curves([curves], "test")
    fonts.font_of.cache_clear()


def test_a_run_given_twice_and_two_of_one_name(tmp_path):
    first, second = (make_run(tmp_path / folder, "r", "torch") for folder in ("one", "two"))
    third = make_run(tmp_path / "one", "s", "torch")
    text = write_report([first, second, third], tmp_path / "out").with_suffix(".md").read_text()
    assert f"{first} (torch)" in text and f"{second} (torch)" in text
    assert "| r (torch) |" not in text and "| s (torch) |" in text
    link = tmp_path / "link"
    link.symlink_to(first)
    with pytest.raises(UserError, match="the same run folder as"):
        write_report([first, link], tmp_path / "out")


def test_a_run_with_nothing_logged_yet(tmp_path):
    config = load_config(None, [f"run.dir={tmp_path}"])
    RunFolder.create(config).close()
    run = load_run(tmp_path / "toy")
    assert (run.update, run.state, run.final, run.best) == (0, "unfinished", {}, {})
    write_report([run.path], tmp_path / "out")
    assert (
        "| toy | unknown | 42 | 0 of 1000 | unfinished | – |"
        in (tmp_path / "out" / "report.md").read_text()
    )


def test_what_a_run_says(twins):
    run = load_run(twins[0])
    assert (run.backend, run.state, run.update) == ("torch", "finished", 40)
    assert run.images_per_second == 123.4 and run.seconds == 3725.4
    assert run.peak_memory_bytes == 300 << 20 and run.best == run.evals[0]


def test_a_caution_of_the_data_set_stands_beside_the_results(twins, tmp_path, page):
    assert "Seen in pretraining" not in (page / "report.md").read_text()
    copies = [shutil.copytree(run, tmp_path / run.name) for run in twins]
    for copy in copies:
        starts = json.loads((copy / "env.json").read_text())
        starts[-1]["data"] = {"caution": "Seen in pretraining"}
        (copy / "env.json").write_text(json.dumps(starts))
    write_report(copies, tmp_path / "out")
    text = (tmp_path / "out/report.md").read_text()
    results = text.partition("## Results")[2].partition("##")[0]
    assert " ".join(results.split()).count("Seen in pretraining.") == 1
    assert "Seen in pretraining." in (tmp_path / "out/report.html").read_text()


def test_a_folder_whose_name_is_no_utf8(twins, tmp_path):
    name = os.fsdecode(b"V\xf6gel")
    copy = shutil.copytree(twins[0], tmp_path / name)
    write_report([copy], tmp_path / "out")
    assert "gel" in (tmp_path / "out/report.html").read_text(encoding="utf-8")
    (copy / "env.json").write_text("[1, 2]")
    with pytest.raises(UserError, match="env.json: expected a JSON list of records"):
        load_run(copy)


def test_agreement_counts(twins):
    found = agreement(load_run(twins[0]), load_run(twins[1]))
    assert found == (8, 7, 1, 0) and found.difference == 1 / 8


def test_agreement_refuses_other_labels(twins, tmp_path):
    with RunFolder.create(load_config(None, [f"run.dir={tmp_path}"])) as run:
        run.write_predictions(["a"], np.array([1]), np.eye(2)[:1])
    with pytest.raises(UserError, match="image a has label 0 in one and 1"):
        agreement(load_run(twins[0]), load_run(run.path))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 1: expected image, label"),
        ("a,b\n", "line 1: expected image, label"),
        ("image,label,predicted,correct,probability\n", "expected predictions, found none"),
        ("image,label,predicted,correct,probability\na,1,1,1,0.5\nb,1", "line 3: expected five"),
        ("image,label,predicted,correct,probability\n\xff", "cannot be read|expected predictions"),
    ],
)
def test_damaged_predictions_are_named(twins, tmp_path, text, said):
    copy = shutil.copytree(twins[0], tmp_path / "run")
    (copy / "predictions.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=said) as caught:
        load_run(copy)
    assert "remove it to report without" in str(caught.value)
    (copy / "predictions.csv").unlink()
    assert load_run(copy).predictions == {}


def test_parity_numbers_that_are_not_finite(twins, tmp_path):
    path = tmp_path / "parity.json"
    path.write_text(json.dumps(PARITY | {"stages": PARITY["stages"][::2]}))
    write_report(twins, tmp_path, Extras(path))
    assert "| block00 | not finite | 1e-06 |" in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        json.dumps(PARITY | {"stages": [3]}),
        json.dumps(PARITY | {"format": "parity-report/0"}),
        json.dumps(PARITY | {"stages": [PARITY["stages"][0] | {"verdict": "agree"}]}),
    ],
)
def test_a_broken_parity_file(twins, tmp_path, text):
    path = tmp_path / "parity.json"
    path.write_text(text)
    with pytest.raises(UserError, match="expected the parity.json"):
        write_report(twins, tmp_path / "out", Extras(path))


def test_other_bad_inputs(twins, tmp_path):
    (tmp_path / "picture.png").write_text("text")
    for arguments, message in (
        (([], tmp_path), "at least one run"),
        (([tmp_path], tmp_path), "expected the folder of a run"),
        ((twins, tmp_path, Extras(None, tmp_path / "picture.png")), "expected a PNG"),
        ((twins, tmp_path, Extras(tmp_path / "absent.json")), "expected the parity.json"),
        ((twins, tmp_path / "picture.png"), "cannot write the report"),
    ):
        with pytest.raises(UserError, match=message):
            write_report(*arguments)


@pytest.mark.parametrize("module", ["matplotlib", "jinja2"])
def test_a_missing_library_is_named(twins, tmp_path, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=rf"needs {module}.*pip install -e '\.\[report\]'"):
        write_report(twins, tmp_path)


def test_runs_that_differ_in_the_seed_are_summed_up(tmp_path):
    """Means, and deviations of samples; unfinished runs and other configurations are apart."""
    runs = [
        make_run(tmp_path, name, name[0], shift, [f"run.seed={name[1:]}", *more], finish)
        for name, shift, more, finish in (
            ("a1", 0.01, (), True),
            ("b1", 0.01, (), True),
            ("a2", 0.03, (), True),
            ("a3", 0.99, (), False),
            ("a4", 0.99, ["optim.lr=0.5"], True),
            ("b2", 0.01, (), True),
        )
    ]
    page = write_report(runs, tmp_path / "out").with_name("report.md").read_text(encoding="utf-8")
    lines = page.partition("## Results")[2].splitlines()
    rows = [line.split(" | ") for line in lines if line.startswith("| TransFG")][:3]
    assert [row[:5] for row in rows] == [
        ["| TransFG", "0.03", "a", "2 of 3", "83.25 ± 1.41"],
        ["| TransFG", "0.03", "b", "2", "82.25 ± 0.00"],
        ["| TransFG", "0.5", "a", "1", "180.25"],
    ]
    agreement_rows = page.partition("Agreement of predictions")[2].partition("</details>")[0]
    pairs = re.findall(r"^\| (..) \(.\) \| (..) \(.\)", agreement_rows, re.M)
    assert pairs == [("a1", "b1"), ("a2", "b2")]
    assert "of runs with the same seed" in agreement_rows


def test_runs_of_different_seeds_alone_are_compared_with_each_other(tmp_path):
    runs = [make_run(tmp_path, f"a{k}", "a", 0.0, [f"run.seed={k}"]) for k in (1, 2)]
    page = write_report(runs, tmp_path / "out").with_name("report.md").read_text(encoding="utf-8")
    assert "| a1 (a) | a2 (a) | 8 of 8 |" in page


def test_weights_are_named(tmp_path):
    origin = Origin("data/weights/x/model.safetensors", 343210987, "ab" * 32, "timm")
    run = make_run(tmp_path / "runs", "one", "torch", weights=origin)
    other = make_run(tmp_path / "runs", "two", "torch")
    write_report([run, other], tmp_path / "out")
    text = (tmp_path / "out/report.md").read_text()
    row = f"| {origin.file} | timm | 343210987 | {origin.sha256} | one (torch) |"
    assert row in text and "weights.sha256" not in text
    write_report([other], tmp_path / "plain")
    assert "## Weights" not in (tmp_path / "plain/report.md").read_text()


def test_runs_of_one_name_are_told_apart(tmp_path):
    """A copied folder has its new name, and two folders of one name have their paths."""
    for folder in ("a", "b"):
        make_run(tmp_path / folder, "trial", "torch")
    shutil.copytree(tmp_path / "a/trial", tmp_path / "copy")
    paths = [tmp_path / "a/trial", tmp_path / "b/trial", tmp_path / "copy"]
    labels = [run.label for run in load_runs(paths)]
    assert labels == [f"{paths[0]} (torch)", f"{paths[1]} (torch)", "copy (torch)"]
    page = write_report(paths, tmp_path / "out").read_text()
    assert all(label in page for label in labels)


def test_powers_of_ten_are_drawn_without_formulas():
    svg = draw_curves([[Curve("a", level(1.0), level(0.5), 0, 0)]], "test", {1: 0.1, 3: 1e-5})
    assert "10⁻⁴" in svg and "mathdefault" not in svg
