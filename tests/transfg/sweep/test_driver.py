"""The driver with runs that take no time: what is run, repeated, refused and reported."""

import os
import signal
from collections import deque

import pytest

from transfg.sweep import driver as driving
from transfg.sweep.driver import Driver
from transfg.sweep.file import read_sweep_file
from transfg.sweep.grid import build_sweep
from transfg.sweep.state import CellState, newest_record, read_state
from transfg.sweep.table import Table, failure_text, plan_text
from transfg_core.config.loading import load_config
from transfg_core.errors import RunFailed
from transfg_core.run.folder import RunFolder
from transfg_core.run.lock import lock_folder

KILLED = -signal.SIGKILL


def cells_of(folder, *overrides, values="[1, 2, 3]", more=""):
    (folder / "base.yaml").write_text("train: {steps: 9, batch_size: 4}\noptim: {warmup: 1}\n")
    (folder / "s.yaml").write_text(f"base: base.yaml\ngrid: {{run.seed: {values}{more}}}\n")
    overrides = [f"run.dir={folder}", *overrides]
    return build_sweep(read_sweep_file(folder / "s.yaml"), overrides).cells


def write_run(cell, updates=9, *, finish=True, backend=None, **changes):
    """A run folder as `train` leaves it; with the data set's classes, as `train` does."""
    tree = cell.config.model_dump()
    tree["model"]["classes"] = 20
    for key, value in changes.items():
        section, _, name = key.partition("_")
        tree[section][name] = value
    run = RunFolder.create(type(cell.config).model_validate(tree), overwrite=True)
    event = {"kind": "event", "update": 0, "event": "start", "backend": backend or cell.backend}
    run.log(event)
    for update in range(1, updates + 1):
        record = {"kind": "train", "update": update, "epoch": 1, "lr": 1, "loss": 0.5}
        run.log(record | {"images_per_second": 0.01 * cell.config.run.seed})
    if finish:
        run.log(event | {"event": "finish", "update": updates})
    run.close()


class Finished:
    """A run that ends at the first look with a given code; without one, some looks after a stop."""

    def __init__(self, code):
        self.code, self.stops, self.looks, self.closed = code, 0, 0, False

    def poll(self):
        self.looks += self.stops > 0
        return 143 if self.looks > 3 else self.code

    def stop(self):
        self.stops += 1

    def close(self):
        self.closed = True


class FakeEngine:
    """Ends the runs of each cell with the codes of `script`; 0 finishes the run."""

    jobs = 2

    def __init__(self, **script):
        self.script, self.started, self.runs, self.most = script, [], [], 0

    def start(self, cell):
        self.started.append(cell.name)
        codes = self.script.get(cell.name.replace("seed-", "s"), [])
        code = codes.pop(0) if codes else 0
        if isinstance(code, Exception):
            raise code
        if code == 0:
            write_run(cell)
        self.runs.append(Finished(code if code != "unfinished" else 0))
        self.most = max(self.most, sum(not run.closed for run in self.runs))
        return self.runs[-1]


@pytest.fixture
def drive(monkeypatch):
    monkeypatch.setattr(driving, "POLL", 0)
    monkeypatch.setattr(driving, "BUSY_POLL", 0)

    def run(cells, engine):
        todo = deque(cell for cell in cells if read_state(cell).state != "finished")
        with Table({cell.name: read_state(cell).state for cell in cells}) as table:
            driver = Driver(engine, table, todo)
            driver.run()
        assert all(each.closed for each in engine.runs)
        return driver

    return run


def test_all_are_run_once_and_finished_ones_never_again(tmp_path, drive, capsys):
    cells = cells_of(tmp_path, values="[1, 2, 3, 4, 5]")
    write_run(cells[1])
    engine = FakeEngine()
    drive(cells, engine)
    assert engine.started == ["seed-1", "seed-3", "seed-4", "seed-5"] and engine.most == 2
    assert "seed-5: finished; 5 finished of 5" in capsys.readouterr().err
    again = FakeEngine()
    drive(cells, again)
    assert again.started == []


def test_a_failed_cell_stops_no_other(tmp_path, drive, capsys):
    cells = cells_of(tmp_path)
    engine = FakeEngine(s1=[1], s2=[RunFailed("disk full")], s3=["unfinished"])
    driver = drive(cells, engine)
    assert engine.started == ["seed-1", "seed-2", "seed-3"]
    reasons = {name: reason for name, (_, reason) in driver.failed.items()}
    assert reasons["seed-1"] == "ended with exit code 1" and reasons["seed-2"] == "disk full"
    assert reasons["seed-3"] == "ended without finishing"
    assert "seed-3: failed: ended without finishing; 3 failed of 3" in capsys.readouterr().err


def test_a_base_that_changes_meanwhile_stops_the_cells_that_follow(tmp_path, drive):
    """The configuration that was checked is the one that runs."""
    cells = cells_of(tmp_path)
    engine = FakeEngine()
    start = engine.start

    def start_and_edit(cell):
        (tmp_path / "base.yaml").write_text("optim: {warmup: 2}\ntrain: {steps: 9}\n")
        return start(cell)

    engine.start = start_and_edit
    driver = drive(cells, engine)
    assert engine.started == ["seed-1"] and list(driver.failed) == ["seed-2", "seed-3"]
    assert "was changed since the sweep began" in driver.failed["seed-2"][1]


def test_a_killed_cell_is_tried_once_more(tmp_path, drive):
    engine = FakeEngine(s1=[KILLED], s2=[KILLED, KILLED], s3=[143])
    driver = drive(cells_of(tmp_path), engine)
    assert sorted(engine.started) == ["seed-1"] * 2 + ["seed-2"] * 2 + ["seed-3"] * 2
    assert [reason[:16] for _, reason in driver.failed.values()] == ["killed (SIGKILL)"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_runs_once(tmp_path, drive, monkeypatch, capsys, number):
    cells = cells_of(tmp_path)
    engine = FakeEngine(s1=[None], s2=[None])
    before = signal.getsignal(number)
    once = iter([number])
    monkeypatch.setattr(Table, "show", lambda *args: [os.kill(os.getpid(), each) for each in once])
    driver = drive(cells, engine)
    assert driver.signal == number and not driver.failed
    assert engine.started == ["seed-1", "seed-2"] and [run.stops for run in engine.runs] == [1, 1]
    assert signal.getsignal(number) is before
    assert "seed-2: stopped; 2 stopped, 1 to do of 3" in capsys.readouterr().err


def test_a_signal_while_a_run_is_started_stops_that_run_too(tmp_path, drive):
    engine = FakeEngine(s1=[None])
    start = engine.start

    def start_and_stop(cell):
        os.kill(os.getpid(), signal.SIGTERM)
        return start(cell)

    engine.start = start_and_stop
    driver = drive(cells_of(tmp_path), engine)
    assert driver.signal == signal.SIGTERM
    assert engine.started == ["seed-1"] and engine.runs[0].stops == 1


def test_a_second_signal_ends_the_driver_at_once(tmp_path, drive, monkeypatch):
    engine = FakeEngine(s1=[None])
    monkeypatch.setattr(Finished, "stop", lambda run: None)  # a run that does not obey
    monkeypatch.setattr(Table, "show", lambda *args: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit) as ended:
        drive(cells_of(tmp_path, values="[1]"), engine)
    assert ended.value.code == 143 and engine.runs[0].closed


def test_a_cell_that_another_process_runs_is_waited_for(tmp_path, drive, monkeypatch, capsys):
    cells = cells_of(tmp_path)
    write_run(cells[0], 3, finish=False)
    other = lock_folder(cells[0].folder)

    def show(table, running):
        if "3 finished" not in table.summary() and "2 finished" in table.summary():
            other.close()

    monkeypatch.setattr(Table, "show", show)
    engine = FakeEngine()
    drive(cells, engine)
    assert engine.started == ["seed-2", "seed-3", "seed-1"]
    assert capsys.readouterr().err.count("seed-1: another process runs it") == 1


def test_a_cell_that_another_process_finished_meanwhile_is_not_repeated(tmp_path, drive):
    cells = cells_of(tmp_path)
    engine = FakeEngine()
    start = engine.start

    def start_and_finish_another(cell):
        if cell is cells[0]:
            write_run(cells[2])
        return start(cell)

    engine.jobs, engine.start = 1, start_and_finish_another
    drive(cells, engine)
    assert engine.started == ["seed-1", "seed-2"]


def test_states(tmp_path):
    first, second, third = cells_of(tmp_path)
    assert read_state(first) == CellState("to do", 0, 9, 4)
    write_run(first)
    write_run(second, 3, finish=False)
    state = read_state(first)
    assert (state.state, state.done, state.left, state.speed) == ("finished", 9, 0, 0.01)
    state = read_state(second)
    assert (state.state, state.done, state.left, state.speed) == ("partial", 3, 24, None)
    write_run(third, 0, finish=False)
    assert read_state(third).state == "to do"
    assert newest_record(second.folder)["update"] == 3 and newest_record(tmp_path) == {}


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"loss_margin": 0.1}, "loss.margin: 0.1 -> 0.4"),
        ({"model_pretrained": "a.npz"}, "model.pretrained: 'a.npz' -> None"),
        ({"backend": "jittor"}, "backend: jittor -> torch"),
        ({"train_steps": 8}, "train.steps: 8 -> 9"),
    ],
)
def test_a_folder_of_another_experiment_is_refused(tmp_path, changes, part):
    (cell,) = cells_of(tmp_path, values="[1]")
    write_run(cell, **changes)
    state = read_state(cell)
    assert state.state == "refused"
    assert state.problem == f"{cell.folder}: holds another experiment:\n    {part}"


def test_a_folder_of_something_else_is_refused(tmp_path):
    first, second, _ = cells_of(tmp_path)
    first.folder.mkdir(parents=True)
    (first.folder / "thesis.txt").touch()
    assert "found other files" in read_state(first).problem
    write_run(second)
    (second.folder / "metrics.jsonl").write_text("no record\n")
    assert "metrics.jsonl, line 1" in read_state(second).problem


def test_keys_that_change_no_number_may_differ(tmp_path):
    (cell,) = cells_of(tmp_path, values="[1]")
    write_run(cell, data_threads=1, data_root="elsewhere", train_eval_batch_size=3)
    assert read_state(cell).state == "finished"


def test_the_length_in_epochs(tmp_path):
    (cell,) = cells_of(tmp_path, "train.steps=null", "train.epochs=3", values="[1]")
    assert read_state(cell).total is None and read_state(cell).left is None
    assert "; 0 images left, besides those of 1 cells with" in plan_text([(cell, read_state(cell))])
    write_run(cell, train_steps=9, train_epochs=None)
    (cell.folder / "env.json").write_text('[{"data": {"training_images": 12}}]')
    assert read_state(cell).state == "finished"  # 3 epochs of 12 images are 9 batches of 4
    (cell.folder / "env.json").write_text('[{"data": {"training_images": 13}}]')
    assert "train.steps: 9 -> 10" in read_state(cell).problem


def test_the_plan_estimates_from_like_cells_alone(tmp_path):
    cells = cells_of(tmp_path, more=", model.stride: [8, 4]")
    for cell in cells[:3]:
        write_run(cell)  # two seeds at stride 8 with 0.01 and 0.02 images/s, one at stride 4
    text = plan_text([(cell, read_state(cell)) for cell in cells])
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines()[1:-1]}
    assert rows["seed-1_stride-8"] == ["finished", "9/9", "0"]
    assert rows["seed-2_stride-4"] == ["to", "do", "0/9", "36", "1.00"]
    assert rows["seed-3_stride-8"] == ["to", "do", "0/9", "36", "0.67"]
    assert text.endswith(
        "6 cells: 3 finished, 3 to do; 108 images left, 2.67 hours one after another"
    )
    (other,) = cells_of(tmp_path, "train.batch_size=2", values="[9]")
    states = [*((cell, read_state(cell)) for cell in cells[:1]), (other, read_state(other))]
    assert plan_text(states).endswith("time unknown for 1 cells: no finished one is like them")


def test_a_failure_shows_the_end_of_the_log(tmp_path):
    (cell,) = cells_of(tmp_path, values="[1]")
    assert failure_text(cell, "lost") == "seed-1: lost"
    cell.log.parent.mkdir(exist_ok=True)
    cell.log.write_text("\n".join(map(str, range(90))) + "\n\n")
    lines = failure_text(cell, "lost").splitlines()
    assert lines[0] == f"seed-1: lost; {cell.log} ends with"
    assert lines[1:] == [f"  | {number}" for number in range(80, 90)]


def test_the_loader_has_no_more_threads_than_the_run(tmp_path):
    from transfg.sweep.engines import thread_overrides

    (cell,) = cells_of(tmp_path, "data.threads=4", values="[1]")
    assert thread_overrides(cell, None) == thread_overrides(cell, 4) == []
    extra = thread_overrides(cell, 1)
    command = cell.command(extra)
    assert load_config(command[1], command[2:-3]).data.threads == 1
