"""Pairs of backends: verdicts on common seeds, ratios on one machine."""

from run_folders import DEVICE, make_run, write_run

from transfg_core.report.cells import all_columns, cells_of
from transfg_core.report.pairs import Verdict, common_runs, pairs_of, speed_table, verdict_table
from transfg_core.run.reading import load_runs


def setting(*paths):
    cells = cells_of(load_runs(paths))
    return pairs_of(cells), all_columns(cells)


def test_pairs_have_one_configuration(tmp_path):
    paths = [
        write_run(tmp_path, "t1", "run.seed=1"),
        write_run(tmp_path, "j1", "run.seed=1", backend="jittor"),
        write_run(tmp_path, "j2", "run.seed=2", backend="jittor"),
        make_run(tmp_path, "t2", "torch", overrides=["run.seed=2"], finish=False),
        write_run(tmp_path, "other", "optim.lr=0.5", backend="jittor"),
        write_run(tmp_path, "third", backend="another"),
    ]
    (pair,), _ = setting(*paths)
    assert (pair.left.backend, pair.right.backend) == ("torch", "jittor")
    assert [[run.path for run in side] for side in common_runs(pair)] == [
        [paths[0]],
        [paths[1]],
    ]  # t2 is not finished


def test_the_verdict_comes_from_the_judge(tmp_path):
    paths = [
        write_run(tmp_path, "t1", "run.seed=1", top1=0.5),
        write_run(tmp_path, "j1", "run.seed=1", backend="jittor", top1=0.6),
        write_run(tmp_path, "t2", "run.seed=2", "optim.lr=0.5"),
        write_run(tmp_path, "j3", "run.seed=3", "optim.lr=0.5", backend="jittor"),
    ]
    pairs, columns = setting(*paths)
    asked = []

    def judge(left, right):
        asked.append((left, right))
        return Verdict("1", "+10.00", "–", "undecided", "3 seeds a side, or more")

    table = verdict_table(pairs, columns, judge, 1.0)
    assert asked == [([paths[0]], [paths[1]])]  # no common seed, no verdict
    assert table.rows == [
        ["TransFG", "0.03", "1", "50.00", "60.00", "+10.00", "–", "undecided",
         "3 seeds a side, or more"]
    ]  # fmt: skip
    assert list(table.header[2:6]) == ["seeds", "torch %", "jittor %", "jittor - torch, points"]


def test_ratios_are_of_one_machine(tmp_path):
    def pair(name, device, **numbers):
        left = write_run(tmp_path / name, "t", speed=200, memory=100, seconds=3600)
        right = write_run(
            tmp_path / name, "j", backend="jittor", speed=50, memory=300, seconds=5400,
            device=device, **numbers,
        )  # fmt: skip
        pairs, columns = setting(left, right)
        return speed_table(pairs, columns)

    table = pair("same", DEVICE)
    assert table.rows == [
        ["TransFG", "200.0", "50.0", "0.25", "1.00", "1.50", "1.50", "100", "300", "3.00",
         "a <processor>, threads 2"]
    ]  # fmt: skip
    assert list(table.header[1:4]) == ["images/s: torch", "images/s: jittor", "ratio"]
    (row,) = pair("other", {"device": "another", "threads": 2}).rows
    assert (row[3], row[6], row[9], row[10]) == ("", "", "", "several machines")
    (row,) = pair("unknown", {}).rows
    assert (row[3], row[10]) == ("", "not recorded")
    (row,) = pair("threads", DEVICE | {"threads": 1}).rows
    assert (row[3], row[6], row[9]) == ("", "", "")
    assert row[10] == "a <processor>, threads 1 and 2: no ratio"


def test_means_are_of_the_runs_that_are_judged(tmp_path):
    paths = [
        write_run(tmp_path, "t1", "run.seed=1", top1=0.5),
        write_run(tmp_path, "t2", "run.seed=2", top1=0.9),
        write_run(tmp_path, "j1", "run.seed=1", backend="jittor", top1=0.6),
    ]
    pairs, columns = setting(*paths)
    verdict = Verdict("1", "+10.00", "–", "undecided", "")
    (row,) = verdict_table(pairs, columns, lambda left, right: verdict, 1.0).rows
    assert row[1:5] == ["1", "50.00", "60.00", "+10.00"]


def test_folds_have_no_verdict(tmp_path):
    folds = [["data.folds=2", "data.split=random", f"data.fold={k}"] for k in range(2)]
    paths = [
        write_run(tmp_path, f"{backend}{k}", *fold, backend=backend)
        for backend in ("torch", "jittor")
        for k, fold in enumerate(folds)
    ]
    pairs, columns = setting(*paths)
    (row,) = verdict_table(pairs, columns, None, 1.0).rows  # nobody is asked
    assert row[1] == "1" and row[4:6] == ["", ""] and "share training images" in row[6]
