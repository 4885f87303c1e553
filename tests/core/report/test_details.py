"""The details of a report: which runs are compared image by image."""

from run_folders import LABELS, write_run

from transfg_core.report.cells import cells_of
from transfg_core.report.details import agreement_table
from transfg_core.report.pairs import pairs_of
from transfg_core.run.reading import load_runs


def test_two_levels_of_classes_are_not_compared(tmp_path):
    paths = [
        write_run(tmp_path, "fine"),
        write_run(tmp_path, "again", "optim.lr=0.5"),
        write_run(tmp_path, "coarse", "model.classes=2", labels=LABELS // 2, guesses=LABELS // 2),
    ]
    runs = load_runs(paths)
    table = agreement_table(runs, pairs_of(cells_of(runs)))
    assert [row[:3] for row in table.rows] == [["fine (torch)", "again (torch)", "8 of 8"]]
    assert "different labels" in table.note
    same = agreement_table(runs[:2], [])
    assert "different labels" not in same.note
