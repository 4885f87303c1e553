"""The sentences at the head of a report."""

from run_folders import write_run

from transfg_core.report.cells import all_columns, cells_of
from transfg_core.report.summary import sentences
from transfg_core.run.reading import load_runs


def last_sentence(*paths):
    cells = cells_of(load_runs(paths))
    return sentences(cells, all_columns(cells))[-1]


def test_the_highest_mean_names_ties_and_compares_equal_numbers_of_runs(tmp_path):
    torch = [write_run(tmp_path, f"t{k}", f"run.seed={k}", top1=0.5) for k in (1, 2)]
    jittor = [
        write_run(tmp_path, f"j{k}", f"run.seed={k}", top1=top1, backend="jittor")
        for k, top1 in ((1, 0.4), (2, 0.6))
    ]
    lucky = write_run(tmp_path, "lucky", "optim.lr=0.5", top1=0.9)  # one seed alone
    text = last_sentence(*torch, *jittor, lucky)
    assert "50.00 % (n 2), TransFG, optim.lr 0.03, torch; TransFG, optim.lr 0.03, jittor." in text
    assert "chosen on the test split" in text
    better = write_run(tmp_path, "t3", "run.seed=1", "optim.lr=0.4", top1=0.7)
    other = write_run(tmp_path, "t4", "run.seed=2", "optim.lr=0.4", top1=0.8)
    assert "75.00 ± 7.07 % (n 2), TransFG, optim.lr 0.4, torch." in last_sentence(
        *torch, *jittor, better, other
    )
