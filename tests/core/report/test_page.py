"""The whole page: the answer first, sweeps of many runs, files, pictures of the data."""

import csv
import io
import re
import shutil

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="the report extra is not installed")
pytest.importorskip("jinja2", reason="the report extra is not installed")

from PIL import Image
from run_folders import make_run, settings, write_run

from transfg_core.config.loading import flatten
from transfg_core.config.sections import ToyConfig
from transfg_core.data.datasets import read_dataset
from transfg_core.data.toy.writing import write_toy
from transfg_core.errors import UserError
from transfg_core.models.layout import ARCHITECTURES
from transfg_core.report.axes import patch_split
from transfg_core.report.output import markdown_lines
from transfg_core.report.page import Extras, write_report
from transfg_core.report.pairs import Verdict
from transfg_core.run.folder import RunFolder

GRID = [
    (placement, stride, contrastive, backend, seed)
    for placement in ("none", "transfg")
    for stride in (6, 8)
    for contrastive in ("false", "true")
    for backend in ("torch", "jittor")
    for seed in (1, 2)
]


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grid")
    return [
        write_run(
            folder, f"r{k}", f"model.placement={placement}", f"model.stride={stride}",
            f"loss.contrastive={contrastive}", f"run.seed={seed}", backend=backend,
            top1=0.5 + 0.001 * k, caution="Images were seen before",
        )
        for k, (placement, stride, contrastive, backend, seed) in enumerate(GRID)
    ]  # fmt: skip


def judge(left, right):
    return Verdict(str(len(left)), "+0.10", "-0.20 .. +0.40", "equivalent", "")


@pytest.fixture(scope="module")
def out(grid, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    write_report(grid, folder, Extras(published=True, judge=judge))
    return folder


def sections(text):
    return re.findall(r"^## (.*)$", text, re.MULTILINE)


def test_the_answer_comes_first(out):
    text = (out / "report.md").read_text()
    assert sections(text) == [
        "Results", "Method and split", "Methods", "Contrastive loss", "Parity of accuracies",
        "Speed and memory", "Curves", "Classes", "Details",
    ]  # fmt: skip
    head = text.partition("## Results")[0]
    assert "32 runs of 8 configurations; 2 seeds: 1, 2." in head
    assert "What differs: method (ViT, TransFG); split (non-overlap, overlap)" in head
    assert "Highest mean of the last step on toy: 53.05 ± 0.07 % (n 2), TransFG" in head
    assert text.count("| equivalent |") == 8


def test_markdown_is_a_page_of_a_repository(out):
    """Lines fit, as in the pages of docs/; none begins as a list by accident."""
    fenced = False
    for line in (out / "report.md").read_text().splitlines():
        fenced ^= line.startswith("```")
        assert fenced or line.startswith(("|", "![")) or len(line) <= 120, line
        assert fenced or not line.startswith(("-", "+", ">"))
    assert markdown_lines("a" * 117 + " - b 2. c").split("\n")[1].startswith("\\-")
    assert markdown_lines("2. a") == "2\\. a" and markdown_lines("2.5 a <b>") == "2.5 a &lt;b>"
    assert markdown_lines("**run** is") == "**run** is" and markdown_lines("* a") == "\\* a"


def test_a_caution_stands_in_every_table_of_accuracies(out):
    text = (out / "report.md").read_text()
    for title in ("Results", "Method and split", "Contrastive loss", "Parity of accuracies"):
        section = text.partition(f"## {title}")[2].partition("\n## ")[0]
        assert "Images were seen before." in " ".join(section.split()), title
    for name in ("results", "contrastive", "class_averages", "weakest_classes", "parity"):
        assert "Images were seen before." in (out / f"tables/{name}.tex").read_text(), name
    for name in ("runs", "configurations"):
        rows = list(csv.DictReader(io.StringIO((out / f"tables/{name}.csv").read_text())))
        assert {row["caution"] for row in rows} == {"Images were seen before"}


def test_csv_files_hold_the_numbers(out, grid):
    rows = list(csv.DictReader(io.StringIO((out / "tables/configurations.csv").read_text())))
    assert len(rows) == 16 and {row["n"] for row in rows} == {"2"}
    first = next(row for row in rows if row["folders"] == f"{grid[0]} {grid[1]}")
    assert (first["method"], first["split"], first["contrastive"]) == ("ViT", "overlap", "off")
    assert float(first["top1_mean"]) == pytest.approx(50.05)
    assert first["top1_sd"] == "0.070711"  # 0.1 / sqrt(2), six decimals
    assert first["hours_mean"] == "1.0" and first["best_top1_on_validation_mean"] == ""
    runs = list(csv.DictReader(io.StringIO((out / "tables/runs.csv").read_text())))
    assert {row["folder"] for row in runs} == {str(path) for path in grid}
    classes = list(csv.DictReader(io.StringIO((out / "tables/per_class.csv").read_text())))
    assert len(classes) == 16 * 4


def test_the_same_folders_in_any_order_give_the_same_bytes(out, grid, tmp_path):
    write_report(grid[::-1], tmp_path, Extras(published=True, judge=judge))
    names = [path.relative_to(out) for path in sorted(out.rglob("*.*"))]
    assert len(names) > 5
    for name in names:
        assert (out / name).read_bytes() == (tmp_path / name).read_bytes(), name


def test_the_same_seed_twice_in_any_order_gives_the_same_bytes(tmp_path):
    runs = [write_run(tmp_path, name, top1=top1) for name, top1 in (("a", 0.5), ("b", 0.6))]
    pages = [
        write_report(order, tmp_path / f"out{k}").read_bytes()
        for k, order in enumerate((runs, runs[::-1]))
    ]
    assert pages[0] == pages[1]


def test_files_of_an_older_report_do_not_stay(out, grid, tmp_path):
    copy = shutil.copytree(out, tmp_path / "out")
    (copy / "tables/mine.csv").write_text("1")
    (copy / "confusions.jpg").write_bytes(b"")
    write_report(grid[:1], copy)
    names = {path.name for path in (copy / "tables").iterdir()}
    assert "mine.csv" in names and "results.tex" in names
    assert not names & {"contrastive.tex", "method_and_split.tex", "parity.tex", "speed.tex"}
    assert not (copy / "confusions.jpg").exists()


def test_a_sweep_of_many_configurations_is_readable(tmp_path):
    runs = [
        write_run(tmp_path / "runs", f"r{k}", f"optim.lr=0.{k + 1:03d}", top1=0.001 * k)
        for k in range(60)
    ]
    runs += [
        make_run(tmp_path / "runs", f"open{k}", "torch", overrides=[f"optim.lr={k + 2}"],
                 finish=False)
        for k in range(12)
    ]  # fmt: skip
    write_report(runs, tmp_path / "out")
    text = (tmp_path / "out/report.md").read_text()
    assert "72 runs of 72 configurations" in text
    assert "Only the 24 most accurate of 72 configurations are drawn." in text
    assert text.count("its numbers are not final") == 8 and "4 more runs are not finished" in text
    assert "Agreement of predictions" not in text  # 60 runs have 1770 pairs
    svg = (tmp_path / "out/curves.svg").read_text()
    assert len(re.findall(r'id="axes_\d+"', svg)) == 2 * 6
    row = next(line for line in text.splitlines() if "| 13 |" in line)
    assert "| 0 of 1 | – |" in row  # an unfinished run gives no number


def test_the_folder_of_a_sweep_stands_for_its_runs(tmp_path):
    runs = [write_run(tmp_path / "sweep", name, f"run.seed={k}") for k, name in enumerate("ab")]
    (tmp_path / "sweep/a.log").write_text("no run")
    (tmp_path / "sweep/empty").mkdir()
    other = write_run(tmp_path, "c", "run.seed=9")
    names = ("report.md", "tables/runs.csv")
    pages = []
    for k, given in enumerate(([tmp_path / "sweep", other], [*runs, other])):
        write_report(given, tmp_path / str(k))
        pages.append([(tmp_path / str(k) / name).read_bytes() for name in names])
    assert pages[0] == pages[1]
    with pytest.raises(UserError, match="empty: expected the folder of a run"):
        write_report([tmp_path / "sweep/empty"], tmp_path / "out")


def test_augmented_evaluations_have_a_table_of_their_own(tmp_path):
    evals = [(40, {"top1": 0.99, "tta": "flip"})]
    run = write_run(tmp_path, "one", evals=evals, top1=0.5)
    text = write_report([run], tmp_path / "out").with_name("report.md").read_text()
    assert "| one | torch | flip | 40 | test | last | 99.00 |" in text
    assert text.count("99.00") == 1


def test_losses_of_stages_have_a_table_of_their_own(tmp_path):
    """The last logged update of a SwinFC; other runs have no row, and alone no table."""
    losses = {"cross_entropy": 1.25, "stage_loss2": 2.5, "stage_loss3": 0.125, "stage_loss4": 0.75}
    fused = write_run(
        tmp_path, "fused", "model.name=swinfc", losses=losses | {"contrastive": 0.0625}
    )
    plain = write_run(tmp_path, "plain", top1=0.25)
    text = write_report([fused, plain], tmp_path / "out").with_name("report.md").read_text()
    row = "| fused | torch | 40 | 1.2500 | 2.5000 | 0.1250 | 0.7500 | 0.0625 | 0.4, 0.6, 0.8 |"
    assert "Losses of stages" in text and row in text
    alone = write_report([plain], tmp_path / "alone").with_name("report.md").read_text()
    assert "Losses of stages" not in alone


def test_a_validation_split_that_chose_the_best_step_is_named(tmp_path):
    evals = [(20, {"top1": 0.3, "split": "validation"})]
    evals += [(40, {"top1": 0.75, "weights": "best", "weights_update": 20})]
    run = write_run(tmp_path, "held", "data.validation=0.1", evals=evals, top1=0.5)
    other = write_run(tmp_path, "plain", evals=[(20, {"top1": 0.9})], top1=0.5)
    text = write_report([run, other], tmp_path / "out").with_name("report.md").read_text()
    header = next(line for line in text.splitlines() if "chosen on validation" in line)
    assert "best top-1 % (chosen on test) | best top-1 % (chosen on validation)" in header
    assert "| 1 | 50.00 | – | 75.00 |" in text and "| 1 | 50.00 | 90.00 | – |" in text
    assert "too good" in text
    alone = write_report([run], tmp_path / "alone").with_name("report.md").read_text()
    assert "too good" not in alone and "chosen on test" not in alone


def test_names_are_text_in_html_and_markdown(tmp_path):
    run = write_run(tmp_path / "<b>&|x", "one", caution="<script>alert(1)</script> `a` | b")
    page = write_report([run], tmp_path / "out").read_text()
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert "<b>&|x" not in page


@pytest.fixture(scope="module")
def birds(tmp_path_factory):
    """A rendered set, and a run that takes every bird of class 0 for one of class 1."""
    folder = tmp_path_factory.mktemp("birds")
    write_toy(folder / "toy", ToyConfig(train_per_class=1, test_per_class=2, size=48), str)
    toy = ["data.toy.train_per_class=1", "data.toy.test_per_class=2", "data.toy.size=48"]
    config = settings(folder, "run", f"data.root={folder}/toy", "data.crop=48", *toy)
    test = read_dataset(config.data, 0).test
    guesses = np.where(test.labels == 0, 1, test.labels)
    with RunFolder.create(config) as run:
        run.record_environment({"device": "x"}, ["transfg"], {})
        run.log({"kind": "event", "event": "start", "backend": "torch", "update": 0})
        run.log({"kind": "eval", "update": 40, "top1": 0.9})
        run.log({"kind": "event", "event": "finish", "backend": "torch", "update": 40})
        run.write_predictions(test.ids, test.labels, np.eye(20)[guesses])
    return run.path, folder / "toy"


def test_confused_classes_are_drawn_where_the_data_is_named(birds, tmp_path):
    run, root = birds
    write_report([run], tmp_path / "without")
    assert not (tmp_path / "without/confusions.jpg").exists()
    assert "confusions.jpg" not in (tmp_path / "without/report.md").read_text()
    write_report([run], tmp_path / "with", Extras(data=str(root)))
    assert (
        "![Images of confused classes](confusions.jpg)" in (tmp_path / "with/report.md").read_text()
    )
    assert "data:image/jpeg;base64," in (tmp_path / "with/report.html").read_text()
    with Image.open(tmp_path / "with/confusions.jpg") as picture:
        assert picture.size == (5 * 120 + 24, 24 + 112 + 8 + 8)  # one pair of classes
        pixels = np.asarray(picture.convert("RGB"), dtype=float)
    # two images on the left, none at the third place, two on the right
    places = [8, 128, 248, 384, 504]
    drawn = [pixels[40:70, left + 5 : left + 35].std() > 2 for left in places]
    assert drawn == [True, True, False, True, True]


def test_other_images_are_refused(birds, tmp_path):
    run, root = birds
    lines = (run / "predictions.csv").read_text().replace("/", "/other-")
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / "predictions.csv").write_text(lines)
    with pytest.raises(UserError, match="expected the test images of"):
        write_report([copy], tmp_path / "out", Extras(data=str(root)))
    with pytest.raises(UserError, match="absent"):
        write_report([run], tmp_path / "out", Extras(data=str(tmp_path / "absent")))
    assert not (tmp_path / "out").exists()


def test_long_words_do_not_widen_the_page(out):
    """A path in a sentence would scroll a narrow screen sideways."""
    style = (out / "report.html").read_text().partition("</style>")[0]
    (rule,) = re.findall(r"^(.*) { overflow-wrap: anywhere; }$", style, re.MULTILINE)
    assert {"p", "h1", "h3"} <= set(rule.split(", "))


def test_a_page_with_every_architecture(tmp_path):
    """Settings of one are no settings of another: a small CNN has a stride and no patch."""
    runs = [
        write_run(tmp_path, name, f"model.name={name}", "loss.contrastive=false")
        for name in ARCHITECTURES
    ]
    runs.append(write_run(tmp_path, "hybrid", "model.stem=tiny_s8"))
    write_report(runs, tmp_path / "report")
    text = (tmp_path / "report/report.md").read_text()
    for method in ("ConvNet", "ResNet-18", "Swin", "SwinFC", "TransFG", "TransFG, stem tiny_s8"):
        assert f"| {method} |" in text, method
    hybrid = settings(tmp_path, "hybrid", "model.stem=tiny_s8").model_dump(mode="json")
    assert patch_split(flatten(hybrid)) == ""  # its patches are of another map
