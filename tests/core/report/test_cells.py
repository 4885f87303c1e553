"""Cells of a report: what belongs together, what distinguishes it, what is averaged."""

import json

from run_folders import make_run, write_run

from transfg_core.report.cells import all_columns, axis_columns, cells_of, label, mean_text
from transfg_core.report.measures import HOURS
from transfg_core.run.comparison import real_differences
from transfg_core.run.reading import load_run, load_runs


def cells(*paths):
    return cells_of(load_runs(paths))


def test_a_cell_holds_the_seeds_of_one_configuration_on_one_backend(tmp_path):
    paths = [
        write_run(tmp_path, "j1", "run.seed=1", backend="jittor", top1=0.5),
        write_run(tmp_path, "t2", "run.seed=2", top1=0.4),
        write_run(tmp_path, "t1", "run.seed=1", top1=0.2),
        write_run(tmp_path, "lr", "run.seed=1", "optim.lr=0.5"),
        make_run(tmp_path, "open", "torch", overrides=["run.seed=3"], finish=False),
    ]
    found = cells(*paths)
    names = [[run.name for run in cell.runs] for cell in found]
    assert names == [["t1", "t2", "open"], ["j1"], ["lr"]]
    assert found[0].seeds == "2 of 3" and found[1].seeds == "1"
    assert found[0].values(lambda run: run.final["top1"]) == [0.2, 0.4]
    columns = all_columns(found)
    assert [column.name for column in columns] == ["method", "optim.lr", "backend"]
    assert label(found[2], columns) == "TransFG, optim.lr 0.5, torch"


def test_the_same_seed_again_is_no_second_seed(tmp_path):
    paths = [write_run(tmp_path, name, "run.seed=1") for name in ("a", "b")]
    found = cells(*paths)
    assert [cell.seeds for cell in found] == ["1", "1"]
    assert found[0].configuration == found[1].configuration
    assert [column.name for column in all_columns(found)][-2:] == ["repetition", "backend"]


def test_a_run_that_changed_its_backend_is_of_neither(tmp_path):
    path = write_run(tmp_path, "mixed", backend="jittor")
    text = (path / "metrics.jsonl").read_text()
    resumed = '{"kind": "event", "event": "resume", "backend": "torch", "update": 20}\n'
    (path / "metrics.jsonl").write_text(text + resumed)
    assert load_run(path).trained_by == "jittor, then torch"
    late = text.replace('"event": "start", "update": 0', '"event": "resume", "update": 400')
    (path / "metrics.jsonl").write_text(late)
    assert load_run(path).trained_by == "jittor from update 400"


def test_order_is_that_of_the_papers(tmp_path):
    paths = [
        write_run(tmp_path, f"{placement}{stride}{margin}", f"model.placement={placement}",
                  f"model.stride={stride}", f"loss.margin={margin}")
        for placement in ("transfg", "none")
        for stride in (6, 8)
        for margin in (0.1, 0.02)
    ]  # fmt: skip
    found = cells(*paths)
    columns = all_columns(found)
    assert [column.name for column in columns] == ["method", "split", "margin", "backend"]
    texts = [[column.value(cell) for column in columns[:3]] for cell in found]
    assert texts[0] == ["ViT", "non-overlap", "0.02"]
    assert texts[1] == ["ViT", "non-overlap", "0.1"]
    assert texts[-1] == ["TransFG", "overlap", "0.1"]


def test_values_that_a_run_lacks_are_not_averaged(tmp_path):
    paths = [write_run(tmp_path, f"r{k}", f"run.seed={k}", top1=top1)
             for k, top1 in enumerate((0.5, None))]  # fmt: skip
    (cell,) = cells(*paths)
    assert cell.values(lambda run: run.final["top1"]) == []


def test_means():
    assert mean_text([]) == "" and mean_text([], missing="–") == "–"
    assert mean_text([1.0]) == "1.00"
    assert mean_text([1.0, 3.0]) == "2.00 ± 1.41"
    assert mean_text([600.0, 600.0], ".0f") == "600"


def test_two_folders_of_one_data_set_are_two_sets(tmp_path):
    roots = ("data/cub50", "data/CUB_200_2011", "data/cub")
    paths = [
        write_run(tmp_path, f"r{k}", "data.name=cub", f"data.root={root}")
        for k, root in enumerate(roots)
    ]
    found = cells(*paths)
    assert [all_columns(found)[0].value(cell) for cell in found] == [
        "cub", "cub (CUB_200_2011)", "cub (cub50)",
    ]  # fmt: skip


def test_folds_are_replicates_as_seeds_are(tmp_path):
    folds = [["data.folds=3", "data.split=random", f"data.fold={k}"] for k in range(3)]
    paths = [write_run(tmp_path, f"r{k}", *fold) for k, fold in enumerate(folds)]
    (cell,) = cells(*paths)
    assert cell.seeds == "3"


def test_the_best_step_and_who_chose_it(tmp_path):
    evals = [(10, {"top1": 0.8}), (20, {"top1": 0.8}), (30, {"top1": 0.99, "tta": "flip"})]
    run = load_run(write_run(tmp_path, "on-test", evals=evals, top1=0.5))
    assert run.chosen_on == "test" and run.best["update"] == 10 and run.final["top1"] == 0.5

    held_out = [(k, {"top1": k / 50, "split": "validation"}) for k in (10, 20, 40)]
    last = {"top1": 0.5, "weights": "ema", "split": "test"}
    best = {"top1": 0.6, "weights": "best", "split": "test"}
    setting = ("data.validation=0.1",)
    run = load_run(write_run(tmp_path, "a", *setting, evals=[*held_out, (40, best)], top1=0.7))
    assert (run.chosen_on, run.best["top1"], run.final["top1"]) == ("validation", 0.6, 0.7)
    assert [record["update"] for record in run.tracked] == [10, 20, 40]
    run = load_run(write_run(tmp_path, "b", *setting, evals=[*held_out, (40, last)], top1=0.7))
    assert run.best == {}  # the best step was never tested
    text = (run.path / "metrics.jsonl").read_text()
    (run.path / "metrics.jsonl").write_text(
        text.replace('"top1": 0.7', '"weights": "ema", "top1": 0.7')
    )
    assert load_run(run.path).final["top1"] == 0.7  # averaged weights are the last ones


def as_knn(path, **more):
    """The folder as `transfg knn` would have written it."""
    file = path / "metrics.jsonl"
    records = [json.loads(line) for line in file.read_text().splitlines()]
    for record in records:
        if record["kind"] == "eval":
            record |= {"method": "knn", "k": 20, "temperature": 0.07} | more
    kept = [record for record in records if record["kind"] != "train"]
    file.write_text("".join(json.dumps(record) + "\n" for record in kept))
    return path


def test_nearest_neighbours_are_no_seeds_of_a_training_with_the_same_configuration(tmp_path):
    untrained = as_knn(write_run(tmp_path, "untrained", "run.seed=3"), update=0)
    paths = [
        write_run(tmp_path, "t1", "run.seed=1"),
        as_knn(write_run(tmp_path, "trained", "run.seed=2")),
        untrained,
    ]
    found = cells(*paths)
    assert sorted([run.name for run in cell.runs] for cell in found) == [
        ["t1"], ["trained"], ["untrained"],
    ]  # fmt: skip
    columns = {column.name: column for column in axis_columns()}
    by_name = {cell.runs[0].name: cell for cell in found}
    texts = {
        name: [columns[axis].value(cell) for axis in ("method", "contrastive", "margin")]
        for name, cell in by_name.items()
    }
    assert texts == {
        "t1": ["TransFG", "on", "0.4"],
        "trained": ["TransFG k-NN", "on", "0.4"],
        "untrained": ["TransFG k-NN", "", ""],
    }
    shown = all_columns(found)
    assert len({label(cell, shown) for cell in found}) == 3


def test_keys_that_change_no_number_split_no_cell(tmp_path):
    paths = [
        write_run(tmp_path, "t1", "run.seed=1", "data.threads=1", "data.name=cub", "data.root=a/x"),
        write_run(tmp_path, "t2", "run.seed=2", "data.threads=2", "data.name=cub", "data.root=b/x",
                  f"data.cache={tmp_path}", "train.eval_every=7"),
        write_run(tmp_path, "j1", "run.seed=1", "data.threads=3", "data.name=cub",
                  "data.root=b/x", "data.workers=1", backend="jittor"),
        write_run(tmp_path, "other", "run.seed=3", "data.name=cub", "data.root=a/y"),
    ]  # fmt: skip
    found = cells(*paths)
    assert [[run.name for run in cell.runs] for cell in found] == [["t1", "t2"], ["j1"], ["other"]]
    assert found[0].key == found[1].key
    first, second, *_ = load_runs(paths)
    assert real_differences(first, second, but=("run.seed",)) == []
    lines = real_differences(first, load_run(paths[3]))
    assert {line.partition(":")[0] for line in lines} == {"data.root", "run.seed"}


def test_after_a_kill_the_time_is_not_known(tmp_path):
    path = write_run(tmp_path, "killed", seconds=6.0)
    assert load_run(path).seconds == 6.0
    file = path / "metrics.jsonl"
    first, *rest = file.read_text().splitlines(keepends=True)
    resumed = first.replace('"start"', '"resume"')
    file.write_text("".join([first, resumed, *rest]))
    (cell,) = cells(path)
    assert HOURS.value(cell.runs[0]) is None and cell.values(HOURS.value) == []
    stopped = first.replace('"start"', '"interrupted"').replace('"seconds": 0', '"seconds": 5')
    file.write_text("".join([first, stopped, resumed, *rest]))
    assert load_run(path).seconds == 11.0


def test_neighbours_take_no_updates(tmp_path):
    path = as_knn(write_run(tmp_path, "trained"))
    file = path / "metrics.jsonl"
    file.write_text(file.read_text().replace('"start", "update": 0', '"start", "update": 40'))
    run = load_run(path)
    assert (run.trained_by, run.images_seen) == ("torch", None)
