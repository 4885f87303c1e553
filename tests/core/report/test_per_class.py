"""Accuracy by class, averages, confusions: against counts by hand."""

import numpy as np
import pytest
from run_folders import write_run

from transfg_core.checkpoints.file import save
from transfg_core.errors import UserError
from transfg_core.report.cells import all_columns, cells_of
from transfg_core.report.confusions import confusion_rows, confusion_table, confusions
from transfg_core.report.per_class import (
    class_names,
    groups_of,
    macro_f1,
    macro_table,
    per_class_rows,
    weakest_table,
)
from transfg_core.run.reading import load_run, load_runs

# labels 0 1 2 3 3 2 2 0
GUESSES = np.array([0, 1, 2, 3, 2, 3, 2, 1])


@pytest.fixture
def groups(tmp_path):
    paths = [
        write_run(tmp_path, "a", "run.seed=1", guesses=GUESSES),
        write_run(tmp_path, "b", "run.seed=2"),  # all right
    ]
    cells = cells_of(load_runs(paths))
    return groups_of(cells), all_columns(cells)


def test_recalls_and_averages(groups):
    (group,), columns = groups
    assert group.images.tolist() == [2, 1, 3, 2]
    recalls = group.recalls(group.cells[0])
    assert recalls == pytest.approx(np.array([[1 / 2, 1, 2 / 3, 1 / 2], [1, 1, 1, 1]]))
    (row,) = macro_table([group], columns).rows
    first = 100 * (1 / 2 + 1 + 2 / 3 + 1 / 2) / 4
    spread = abs(100 - first) / 2**0.5
    assert row[2:5] == ["2", "81.25 ± 26.52", f"{(first + 100) / 2:.2f} ± {spread:.2f}"]
    assert row[6:] == ["0", "75.00"]
    # F1 by hand: 2/(2+1), 2/(1+2), 4/(3+3), 2/(2+2)
    run = group.cells[0].finished[0]
    assert macro_f1(run, 4) == pytest.approx((2 / 3 + 2 / 3 + 2 / 3 + 1 / 2) / 4)


def test_confused_classes(groups):
    (group,), _ = groups
    found = confusions(group)
    pairs = [(one.label, one.guess, one.share, one.runs, one.examples) for one in found]
    assert pairs == [
        (0, 1, 1 / 4, 1, ("h",)),
        (3, 2, 1 / 4, 1, ("e",)),
        (2, 3, 1 / 6, 1, ("f",)),
    ]
    assert confusion_table([group]).rows[0] == ["toy", "0", "1", "25.00", "1 of 2"]
    assert confusion_rows([group])[1:] == [
        ["toy", "0", "1", 25.0, 1], ["toy", "3", "2", 25.0, 1], ["toy", "2", "3", 16.6667, 1],
    ]  # fmt: skip


def test_every_class_is_in_the_csv_file(groups):
    (group,), columns = groups
    header, *rows = per_class_rows([group], columns)
    assert len(rows) == 4
    assert dict(zip(header[2:], rows[0][2:], strict=True)) == {
        "data_set": "toy", "label": 0, "class": "0", "test_images": 2, "n": 2, "accuracy": 75.0,
        "sd": 35.3553,
    }  # fmt: skip
    assert [row[1] for row in weakest_table([group]).rows] == ["0", "3", "2", "1"]


def test_classes_without_test_images_have_no_accuracy(tmp_path):
    run = write_run(tmp_path, "a", "model.classes=6")
    cells = cells_of(load_runs([run]))
    (group,) = groups_of(cells)
    assert len(group.classes) == 6 and len(weakest_table([group]).rows) == 4
    (row,) = macro_table([group], all_columns(cells)).rows
    assert row[4] == "100.00"


def test_names_come_from_a_checkpoint_or_from_folders(tmp_path):
    names = [
        f"{folder}/{k}.jpg"
        for k, folder in enumerate("wren robin jay owl owl jay jay wren".split())
    ]
    path = write_run(tmp_path, "a", images=names)
    assert class_names(load_run(path)) == ("wren", "robin", "jay", "owl")
    mixed = write_run(tmp_path, "b", images=[*names[:-1], "jay/8.jpg"])
    assert class_names(load_run(mixed)) == ("0", "robin", "jay", "owl")
    checkpoint = path / "checkpoints/best.safetensors"
    saved = {"dataset": {"classes": ["A", "B", "C", "D"]}}
    save(checkpoint, {"x": np.zeros(1)}, saved)
    assert class_names(load_run(path)) == ("A", "B", "C", "D")
    save(checkpoint, {"x": np.zeros(1)}, {"dataset": {"classes": ["A"]}})  # of another run
    assert class_names(load_run(path))[0] == "wren"
    checkpoint.write_bytes(b"damaged")
    assert class_names(load_run(path))[0] == "wren"


def test_data_sets_are_kept_apart(tmp_path):
    paths = [write_run(tmp_path, "a"), write_run(tmp_path, "b", "data.root=data/other")]
    groups = groups_of(cells_of(load_runs(paths)))
    assert [group.name for group in groups] == ["toy", "toy (other)"]


@pytest.mark.parametrize("label", ["x", "-1", "1e3", "99999999999"])
def test_labels_that_are_no_classes_are_refused(tmp_path, label):
    path = write_run(tmp_path, "a")
    file = path / "predictions.csv"
    file.write_text(file.read_text() + f"z,{label},1,0,0.5\n")
    with pytest.raises(
        UserError, match=r"predictions.csv, line 10: expected the number of a class"
    ):
        load_run(path)


def test_folds_together_have_the_test_images_of_all(tmp_path):
    """Class 3 has test images in the second fold alone."""
    parts = {0: [0, 1, 2, 2], 1: [0, 1, 3, 3, 3]}
    paths = []
    for seed in (1, 2):
        for fold, labels in parts.items():
            of = [f"run.seed={seed}", "data.folds=2", "data.split=random",
                  f"data.fold={fold}", "model.classes=4"]  # fmt: skip
            labels = np.array(labels)
            images = [f"{fold}{k}" for k in range(len(labels))]
            more = {"labels": labels, "guesses": labels, "images": images}
            paths.append(write_run(tmp_path, f"r{seed}{fold}", *of, **more))
    cells = cells_of(load_runs(paths))
    (group,) = groups_of(cells)
    assert group.images.tolist() == [2, 2, 2, 3]
    header, *rows = per_class_rows([group], all_columns(cells))
    at = [header.index(name) for name in ("class", "test_images", "n", "accuracy", "sd")]
    assert [[row[k] for k in at] for row in rows] == [
        ["0", 2, 4, 100.0, 0.0], ["1", 2, 4, 100.0, 0.0],
        ["2", 2, 2, 100.0, 0.0], ["3", 3, 2, 100.0, 0.0],
    ]  # fmt: skip
