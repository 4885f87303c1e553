"""The suite can reject: one planted fault in files that agree changes the verdict."""

import json
import os
import shutil
import signal
import sys
import threading
import time
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pytest
from synthetic import change, suite_of, use_noise
from typer.testing import CliRunner

from parity.cases.case import BY_NAME
from parity.cases.golden import BY_GOLDEN
from parity.comparison.differences import load_differences
from parity.comparison.verdict import worst
from parity.errors import ParityError
from parity.suite import run as suite_run
from parity.suite import vacuous
from parity.suite.jobs import BASELINE, Job, as_argument, from_argument
from parity.suite.plan import (
    CANDIDATE,
    FLOAT64_VARIANTS,
    PAIR,
    VARIANTS,
    Suite,
    baseline_jobs,
    candidate_jobs,
    continue_jobs,
    device_of,
    float64_baseline_jobs,
    float64_jobs,
    halves,
    run_children,
    start_child,
    variant_jobs,
)
from parity.suite.run import REPORTS, clear, judge_suite, record_suite, run_suite
from transfg.parity import app
from transfg_core.errors import UserError

CASES = ("overlap", "adam")
PUBLISHED = f"published program : {BASELINE}"
EXACT = "float64"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A recorded suite of noise, and the jobs of each child process."""
    suite = suite_of(tmp_path_factory.mktemp("recorded"), CASES, ("smooth",))
    (suite.folder / "traces").mkdir()
    with pytest.MonkeyPatch.context() as monkeypatch:
        started = use_noise(monkeypatch)
        record_suite(suite)
    return suite, started


@pytest.fixture(scope="module")
def rows(recorded):
    """The verdicts on the recorded suite."""
    return judge_suite(recorded[0])


@pytest.fixture
def suite(recorded, tmp_path):
    """A copy of one case, in which tests plant faults."""
    return copy_of(recorded, tmp_path, "overlap")


def copy_of(recorded, folder, *cases, goldens=(), checks=False):
    """A suite of these cases, with copies of their traces."""
    suite = replace(suite_of(folder, cases, goldens), checks=checks)
    (folder / "traces").mkdir()
    names = [*cases, *(f"golden-{name}" for name in goldens), *["checks"] * checks]
    for name in names:
        for path in recorded[0].folder.glob(f"traces/{name}-*.npz"):
            shutil.copy(path, folder / "traces")
    return suite


def wrong(suite):
    """The rows that are not equivalent: pair, precision, stage/tap."""
    return [
        (row.pair, row.precision, f"{row.stage}/{row.tap}")
        for row in judge_suite(suite)
        if row.verdict != "equivalent"
    ]


def test_equal_files_are_equivalent(rows):
    assert [row for row in rows if row.verdict != "equivalent"][:3] == []
    assert {row.pair_error for row in rows if row.pair == PAIR} == {0.0}
    assert {row.case for row in rows} == {*CASES, "golden-smooth", "checks"}
    pairs = {(row.pair, row.precision) for row in rows}
    assert pairs == {(PAIR, "float32"), (PAIR, EXACT), (PUBLISHED, "float32")} | {
        (f"{BASELINE} : {CANDIDATE}", "float32")
    }
    for case in CASES:
        found = {row.stage for row in rows if row.case == case and row.precision == "float32"}
        assert found >= {"parameters", "forward", "losses", "gradients", "backward", "rollout"}
        assert found >= {"one update", "updates", "evaluation", "cross-load", "isolated backward"}
        assert "state" not in found


def test_jittor_has_one_process_at_a_time_and_each_waits_for_its_sources(recorded):
    _, started = recorded
    assert all(len({job.backend for job in jobs}) == 1 for jobs in started)
    # in the order of record_suite
    together = [started[:2], started[2:4], started[4:6], started[6:]]
    backends = [[jobs[0].backend for jobs in group] for group in together]
    twice = [BASELINE, BASELINE]
    assert backends == [twice, twice, [BASELINE, CANDIDATE], [*twice, CANDIDATE, BASELINE]]
    written: set[str] = set()
    for group in together:
        before = set(written)
        for jobs in group:
            own: set[str] = set()
            for job in jobs:
                needed = {job.source, job.force} - {None}
                needed = {path for path in needed if path.endswith(".npz")}
                assert needed <= before | own, job
                own.add(job.out)
            written |= own
    assert len(written) == sum(map(len, started))  # no file is written twice


def test_float64_has_processes_without_a_device(recorded):
    """Jittor has no float64 products on CUDA, and noise depends on the device."""
    _, started = recorded
    kinds = [{job.precision for job in jobs} for jobs in started]
    assert all(len(kind) == 1 for kind in kinds) and {EXACT} in kinds and {"float32"} in kinds
    hidden = [device_of(jobs) for jobs in started]
    assert all(bool(more) == (kind == {EXACT}) for more, kind in zip(hidden, kinds, strict=True))
    none = {"CUDA_VISIBLE_DEVICES": "", "nvcc_path": "", "cache_name": ""}
    assert [more for more in hidden if more] == [none] * kinds.count({EXACT})


def test_jobs_of_a_case_stay_together():
    jobs = [Job(BASELINE, case, f"{case}{i}") for i in range(2) for case in ("a", "b", "c")]
    assert [[job.out for job in half] for half in halves(jobs)] == [
        ["a0", "c0", "a1", "c1"],
        ["b0", "b1"],
    ]
    assert halves(jobs[:1]) == [jobs[:1], []]


# Faults


def scaled(value):
    return value * value.dtype.type(1 + 1e-3)


def one_off(value):
    value = value.copy()
    value.flat[-1] += 1
    return value


def one_bit(value):
    value = value.copy()
    value.flat[0] = np.nextafter(value.flat[0], value.dtype.type(9))
    return value


def one_nan(value):
    value = value.copy()
    value.flat[-1] = np.nan
    return value


def gone(value):
    return None


def louder(value):
    return value * 1e4


KEY = "grad/blocks.0.attn.key.bias"
FAULTS = {
    "parameters/param/blocks.1.mlp.fc1.bias": one_bit,
    "forward/block00": scaled,
    "forward/block00.attn.query": scaled,
    "forward/logits": one_nan,
    "forward/embed": lambda value: value[::-1],
    "selection/part_index": one_off,
    "backward/d/block02": lambda value: -value,
    "losses/contrastive": scaled,
    "gradients/grad/pos_embed": scaled,
    f"gradients/{KEY}": louder,
    "gradients/grad/head.bias": gone,
    "gradients/grad/head.weight": lambda value: value.T,
    "gradients/clipped_norm": scaled,
    "rollout/rollout": scaled,
    "one update/momentum/head.weight": scaled,
    "one update/grad_norm": scaled,
    "one update/optim/updates": one_off,
    "updates/step/part_norm.bias": scaled,
    "updates/loss": scaled,
    "updates/optim/updates": one_off,
    "evaluation/logits": lambda value: value[:, ::-1],
    "evaluation/part_index": one_off,
    "evaluation/prediction": one_off,
}
EXACT_FAULTS = {  # in small taps, since variants store large ones as sketches
    "forward/logits": scaled,
    "gradients/grad/head.bias": scaled,
    "losses/loss": scaled,
    "backward/d/logits": scaled,
    "updates/step/head.bias": scaled,
}
ISOLATED = {
    "isolated forward/block00": scaled,
    "isolated selection/part_scores": scaled,
    "isolated backward/d/block00.attn.query": scaled,
    "isolated gradients/grad/cls_token": gone,
    f"isolated gradients/{KEY}": louder,
    "isolated losses/loss": one_nan,
}


def plant(path, faults):
    for tap, fault in faults.items():
        change(path, tap, fault)


@pytest.mark.parametrize("backend", [CANDIDATE, BASELINE])
def test_faults_between_the_twins(suite, backend):
    """Each fault changes the verdict of its own row and of no other."""
    plant(suite.path(backend, "overlap", "case", "float32"), FAULTS)
    found = wrong(suite)
    assert {tap for _, _, tap in found} == set(FAULTS) and len(found) == len(FAULTS)
    assert {row[:2] for row in found} == {(PAIR, "float32")}


def test_one_fault_alone(suite):
    tap = "selection/part_scores"
    plant(suite.path(CANDIDATE, "overlap", "case", "float32"), {tap: scaled})
    assert wrong(suite) == [(PAIR, "float32", tap)]


@pytest.mark.parametrize("kind", ["case", "isolated"])
@pytest.mark.parametrize("backend", [CANDIDATE, BASELINE])
def test_faults_in_float64(suite, backend, kind):
    faults = EXACT_FAULTS
    if kind == "isolated":
        faults = {f"isolated {tap}": f for tap, f in faults.items() if not tap.startswith("up")}
    for variant in (
        None,
        *FLOAT64_VARIANTS[kind],
    ):  # its variants have the fault as well
        path = suite.path(backend, "overlap", kind, EXACT, variant)
        if path.exists():
            plant(path, faults)
    found = {tap for pair, precision, tap in wrong(suite) if (pair, precision) == (PAIR, EXACT)}
    assert found == set(faults)


def test_faults_in_isolated_operations(suite):
    plant(suite.path(CANDIDATE, "overlap", "isolated", "float32"), ISOLATED)
    found = wrong(suite)
    assert {tap for _, _, tap in found} == set(ISOLATED) and len(found) == len(ISOLATED)


def test_noise_of_isolated_operations_is_measured(suite):
    """The bound of an isolated operation in float32 also follows from its variant."""
    tap = "isolated losses/loss"
    path = suite.path(BASELINE, "overlap", "isolated", "float32", "symmetry:1")
    change(path, tap, lambda value: value * np.float32(1 + 1e-6))
    path = suite.path(CANDIDATE, "overlap", "isolated", "float32")
    change(path, tap, lambda value: value * np.float32(1 + 3e-6))
    assert wrong(suite) == []
    change(path, tap, lambda value: value * np.float32(1 + 3e-6))
    assert wrong(suite) == [(PAIR, "float32", tap)]


def test_faults_after_loading_the_others_state(recorded, tmp_path):
    suite = copy_of(recorded, tmp_path, "adam")
    tap = "cross-load/exp_avg_sq/head.bias"
    for backend in (BASELINE, CANDIDATE):
        plant(suite.path(backend, "adam", "continue", "float32"), {tap: scaled})
    pairs = [f"{CANDIDATE} : {BASELINE}", f"{BASELINE} : {CANDIDATE}"]
    assert wrong(suite) == [(pair, "float32", tap) for pair in pairs]
    for backend in (BASELINE, CANDIDATE):
        plant(suite.path(backend, "adam", "continue", "float32"), {tap: gone})
    assert wrong(suite) == [(pair, "float32", tap) for pair in pairs]


def test_causes_come_from_the_trace_that_continued(recorded, tmp_path):
    suite = copy_of(recorded, tmp_path, "adam")
    tap = "cross-load/step/head.bias"
    plant(suite.path(CANDIDATE, "adam", "continue", "float32"), {tap: lambda value: 2 * value})
    (found,) = suite_run.explain(suite, judge_suite(suite))
    assert (found.place, found.pair) == (tap, PAIR)
    assert "done twice" in found.causes[0][1]


def test_faults_of_both_show_against_the_published_program(recorded, tmp_path):
    """The fault is in every recording of both backends. Taps without published numbers hide it."""
    suite = copy_of(recorded, tmp_path, goldens=("smooth",))
    taps = ("forward/features", "forward/logits", "losses/loss", "gradients/grad/cls_token",
            "updates/step/head.bias")  # fmt: skip
    for path in suite.folder.glob("traces/golden-smooth-*.npz"):
        plant(path, dict.fromkeys((*taps, "forward/part_norm"), scaled))
    found = wrong(suite)
    assert {tap for _, _, tap in found} == set(taps) and len(found) == len(taps)
    assert {row[:2] for row in found} == {(PUBLISHED, "float32")}


def test_a_part_that_the_published_program_did_not_select(recorded, tmp_path, monkeypatch):
    real = suite_run.published_trace

    def moved(golden, like):
        trace = real(golden, like)
        taps = {**trace.taps, "selection/part_index": one_off(trace.taps["selection/part_index"])}
        return replace(trace, taps=taps)

    monkeypatch.setattr(suite_run, "published_trace", moved)
    suite = copy_of(recorded, tmp_path, goldens=("smooth",))
    assert wrong(suite) == [(PUBLISHED, "float32", "selection/part_index")]


@pytest.mark.parametrize("backend", [BASELINE, CANDIDATE])
def test_faults_in_the_checks(recorded, tmp_path, backend):
    suite = copy_of(recorded, tmp_path, checks=True)
    faults = {"contract/holds": np.logical_not, "data/crc": one_off, "loading/x": one_bit}
    path = suite.path(backend, "checks", "checks", "float32")
    plant(path, faults)
    assert wrong(suite) == [(PAIR, "float32", tap) for tap in faults]
    plant(path, {"contract/holds": gone})
    found = wrong(suite)
    assert {tap for _, _, tap in found} == set(faults)


def test_a_claim_that_is_false_in_both(recorded, tmp_path):
    suite = copy_of(recorded, tmp_path, checks=True)
    for backend in (BASELINE, CANDIDATE):
        path = suite.path(backend, "checks", "checks", "float32")
        plant(path, {"contract/holds": np.logical_not})
    assert wrong(suite) == [(PAIR, "float32", "contract/holds")]


@pytest.mark.parametrize("kind", ["case", "isolated", "continue"])
@pytest.mark.parametrize("backend", [BASELINE, CANDIDATE])
def test_a_trace_that_is_missing_or_of_other_weights(suite, recorded, backend, kind):
    path = suite.path(backend, "overlap", kind, "float32")
    shutil.copy(recorded[0].path(backend, "adam", kind, "float32"), path)
    with pytest.raises(ParityError, match="not of one computation"):
        judge_suite(suite)
    path.unlink()
    with pytest.raises(ParityError, match=f"{path}: no such trace"):
        judge_suite(suite)


# A whole run


@pytest.fixture
def run(suite, monkeypatch, capsys):
    """Run the suite on prepared traces, with a fault if given; return code, report and output."""
    prepared = suite.folder / "prepared"
    (suite.folder / "traces").rename(prepared)

    def copy(target):
        shutil.copytree(prepared, target.folder / "traces", dirs_exist_ok=True)

    monkeypatch.setattr(suite_run, "record_suite", copy)

    def run(tap=None, fault=None, **options):
        path = prepared / suite.path(CANDIDATE, "overlap", "case", "float32").name
        if tap:
            change(path, tap, fault)
        code = run_suite(suite, **options)
        text = (suite.folder / "parity.json").read_text(encoding="utf-8")
        return code, json.loads(text), capsys.readouterr().out

    return run


def test_a_run_of_equal_files(run, suite):
    code, report, printed = run()
    assert code == 0 and report["verdict"] == "equivalent" and printed
    assert set(report["environment"]) == {BASELINE, CANDIDATE}
    assert not (suite.folder / "traces").exists()  # files that only served the verdict are deleted
    before = {path.name for path in (suite.folder / "prepared").iterdir()}
    assert run(keep=True)[0] == 0
    assert {path.name for path in (suite.folder / "traces").iterdir()} == before


def test_a_run_with_a_fault(run, suite):
    code, report, printed = run("forward/block00", scaled)
    assert (code, report["verdict"]) == (1, "different")
    assert report["counts"]["different"] == 1
    (row,) = [row for row in report["rows"] if row["verdict"] == "different"]
    assert (row["case"], row["stage"], row["tap"]) == ("overlap", "forward", "block00")
    assert "block00" in printed
    assert (suite.folder / "traces" / "overlap-torch-isolated-float32.npz").exists()


def test_a_run_that_cannot_be_decided(run, suite):
    for name in VARIANTS[BASELINE]:
        path = suite.path(BASELINE, "overlap", "case", "float32", name)
        change(suite.folder / "prepared" / path.name, "forward/logits", lambda v: v * v)
    code, report, _ = run()
    assert code == 2 and report["verdict"] == "undecided"


def test_nothing_compared_is_no_agreement(tmp_path):
    assert judge_suite(Suite(tmp_path, [], [], checks=False)) == []
    assert worst([]) == "undecided"


# Child processes


def impostor(monkeypatch, tmp_path, script):
    """Make child processes run a shell script in place of Python."""
    path = tmp_path / "impostor"
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(path))
    monkeypatch.setattr(sys, "stderr", sys.__stderr__)  # a child cannot write to pytest's


@pytest.mark.parametrize(
    ("script", "status"),
    [("kill -SEGV $$", -11), ("exit 3", 3), ("sleep 0.1; exit 1", 1)],
)
def test_a_crashed_child_names_its_backend_and_leaves_no_verdict(
    monkeypatch, tmp_path, script, status
):
    impostor(monkeypatch, tmp_path, script)
    folder = tmp_path / "out"
    clear(folder)
    for stale in (*REPORTS, "traces/old.npz", "traces/.killed.npz.4242"):
        (folder / stale).write_text("of an earlier run", encoding="utf-8")
    with pytest.raises(UserError, match=f"recording backend torch ended with status {status} "):
        run_suite(suite_of(folder, ("overlap",)))
    assert {path.name for path in folder.rglob("*")} == {"traces"}


@pytest.mark.parametrize("options", [["bisect"], []])
@pytest.mark.parametrize("draw", ["outliers", "nosie"])
def test_weights_without_a_seed_are_refused_before_anything_is_cleared(options, draw, tmp_path):
    (tmp_path / "parity.json").write_text("of an earlier run", encoding="utf-8")
    done = CliRunner().invoke(app, [*options, "--out", str(tmp_path), "--draw", draw])
    assert isinstance(done.exception, UserError) and f"--draw {draw}: " in str(done.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["parity.json"]


def test_files_that_no_run_made_are_left_alone(tmp_path):
    (tmp_path / "traces").mkdir()
    (tmp_path / "traces" / "mine.txt").write_text("mine", encoding="utf-8")
    (tmp_path / "parity.json").write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match="traces: holds mine.txt, which is no trace; choose"):
        run_suite(suite_of(tmp_path, ("overlap",)))
    assert len(list(tmp_path.rglob("*"))) == 3


def test_the_second_of_two_children_is_the_one_named(monkeypatch, tmp_path):
    impostor(monkeypatch, tmp_path, "[ $OMP_NUM_THREADS = 7 ] && exit 4; exit 0")
    jobs = [Job(name, "overlap", str(tmp_path / name)) for name in (BASELINE, CANDIDATE)]
    run_children(start_child(jobs[:1]))
    with pytest.raises(UserError, match="backend jittor ended with status 4"):
        run_children(start_child(jobs[:1]), start_child(jobs[1:], threads=7))
    assert start_child([]) is None


def test_one_childs_failure_ends_the_other(monkeypatch, tmp_path):
    impostor(monkeypatch, tmp_path, "[ $OMP_NUM_THREADS = 7 ] && exec sleep 60; exit 1")
    children = [
        start_child([Job(name, "overlap", str(tmp_path / name))], threads)
        for name, threads in ((BASELINE, 1), (CANDIDATE, 7))
    ]
    with pytest.raises(UserError, match="backend torch"):
        run_children(*children)
    assert children[1].process.wait(5) == -signal.SIGTERM


def test_an_interrupt_ends_the_children(monkeypatch, tmp_path):
    impostor(monkeypatch, tmp_path, "exec sleep 60")
    children = [start_child([Job(name, "overlap", "x")]) for name in (BASELINE, CANDIDATE)]
    main = threading.main_thread().ident
    threading.Timer(0.3, signal.pthread_kill, (main, signal.SIGINT)).start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_children(*children)
    assert [child.process.wait(5) for child in children] == [-signal.SIGTERM] * 2
    assert time.monotonic() - start < 10


def test_a_child_is_given_its_jobs_and_this_source_tree(monkeypatch, tmp_path):
    how = tmp_path / "how"
    script = f'printf "%s\\n" "$PYTHONPATH" "$OMP_NUM_THREADS" "$@" >{how}'
    impostor(monkeypatch, tmp_path, script)
    job = Job(BASELINE, "overlap", "x", variant="ulp:1")
    run_children(start_child([job], threads=1))
    path, threads, *command, jobs = how.read_text(encoding="utf-8").splitlines()
    root = Path(suite_run.__file__).resolve().parents[2]
    assert path.split(os.pathsep)[0] == str(root) and threads == "1"
    assert command == ["-m", "parity.suite.record"]
    assert from_argument(jobs) == [job]


def test_the_jobs_of_a_whole_suite_fit_on_a_command_line(tmp_path):
    """Linux accepts 128 KiB in one argument; the folder's name is in it many times."""
    suite = Suite(tmp_path.joinpath(*["x" * 250] * 4))
    for jobs in (
        baseline_jobs(suite),
        variant_jobs(suite, BASELINE),
        candidate_jobs(suite) + variant_jobs(suite, CANDIDATE),
        *halves(float64_baseline_jobs(suite)),
        float64_jobs(suite),
        continue_jobs(suite),
    ):
        assert len(as_argument(jobs)) < 2**15, len(jobs)


# The table of differences


def test_every_allowance_is_in_use(rows):
    """Each case, stage and pattern of differences.yaml matches a tap that the suite compares."""
    taps = {(row.case, row.stage, row.precision, row.tap) for row in rows}
    for entry in load_differences():
        allow = entry.get("allow")
        if not allow:
            continue
        there = [
            tap
            for tap in taps
            if tap[0] in allow.get("cases", [tap[0]])
            and tap[1] in allow.get("stages", [tap[1]])
            and tap[2] == allow.get("precision", tap[2])
        ]
        if not allow.get("cases") or set(CASES) & set(allow["cases"]):
            assert {tap[1] for tap in there} >= set(allow.get("stages", [])), entry["id"]
            for pattern in allow["taps"]:
                assert any(fnmatchcase(tap[3], pattern) for tap in there), (entry["id"], pattern)
        assert set(allow.get("cases", [])) <= BY_NAME.keys(), entry["id"]


def test_nothing_is_excused_but_key_biases_under_adam_and_last_digits_of_float64():
    """The true gradient of a key bias is zero, and Adam divides by it."""
    for entry in load_differences():
        allow = entry.get("allow")
        if allow and allow.get("precision") == "float64":
            assert allow["relative"] <= 1e-14, entry["id"]
        elif allow:
            assert allow["taps"] in (["step/*.attn.key.bias"], ["ema/*.attn.key.bias"]), entry["id"]
            assert set(allow["cases"]) <= {"adam", "adamw", "finetune", "swin-shifted"}, entry["id"]


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_lower_precisions_are_compared_alone(tmp_path, monkeypatch, precision):
    """Only float32 has float64 and checks; bfloat16 compares only isolated operations."""
    plans = []
    monkeypatch.setattr(suite_run, "run_suite", lambda plan, keep: plans.append(plan) or 0)
    arguments = ["--precision", precision, "--out", str(tmp_path)]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    (plan,) = plans
    assert (plan.precision, plan.float64, plan.checks) == (precision, *[precision == "float32"] * 2)
    assert (plan.whole, bool(plan.goldens)) == (precision != "bfloat16",) * 2


def test_a_suite_of_isolated_operations_records_and_judges_nothing_else(suite, tmp_path):
    plan = replace(
        suite, precision="bfloat16", float64=False, whole=False, goldens=(), checks=False
    )
    kinds = {
        (job.backend, job.kind, job.precision)
        for make in (baseline_jobs, candidate_jobs, float64_baseline_jobs, continue_jobs)
        for job in make(plan)
    }
    assert kinds == {
        ("torch", "case", "bfloat16"),  # feeds the isolated operations
        ("torch", "isolated", "bfloat16"),
        ("torch", "isolated", "float64"),
        ("jittor", "isolated", "bfloat16"),
    }
    assert not variant_jobs(plan, "torch") + variant_jobs(plan, "jittor")
    rows = judge_suite(replace(suite, whole=False, goldens=(), checks=False))
    assert rows and all(row.stage.startswith("isolated ") for row in rows)


def test_a_vacuous_tap_needs_a_reason(recorded, tmp_path, monkeypatch):
    """A tap that is zero in all recordings agrees, but it would hide a case that tests nothing."""
    suite = copy_of(recorded, tmp_path, "overlap")
    for path in suite.folder.glob("traces/overlap-*-case-*.npz"):
        plant(path, {"gradients/grad/head.bias": np.zeros_like})
    rows = judge_suite(suite)
    zeros = [row for row in rows if row.verdict != "equivalent"]
    assert {(row.tap, row.verdict) for row in zeros} == {("grad/head.bias", "vacuous")}
    assert {row.precision for row in zeros} == {"float32", "float64"}
    refused = [row for row in vacuous.refuse_vacuous(rows) if row.verdict == "undecided"]
    assert [row.place for row in refused] == [row.place for row in zeros]
    assert refused[0].reason == "vacuous: zero in the baseline; not in vacuous.yaml"
    entry = {"cases": ["overlap"], "taps": ["gradients/grad/head.*"], "why": "a test"}
    monkeypatch.setattr(vacuous, "listed_vacuous", lambda: [entry])
    assert vacuous.refuse_vacuous(rows) == rows
    monkeypatch.setattr(vacuous, "listed_vacuous", lambda: [entry | {"cases": ["mul"]}])
    assert vacuous.refuse_vacuous(rows) != rows


@pytest.mark.parametrize("cases", [{}, {"cases": ["overlap"]}])
def test_an_entry_for_a_tap_that_is_not_vacuous_is_refused(recorded, tmp_path, monkeypatch, cases):
    """It would excuse the same tap once it is vacuous."""
    rows = judge_suite(copy_of(recorded, tmp_path, "overlap"))
    entry = {"taps": ["gradients/grad/head.bias"], "why": "a test", **cases}
    monkeypatch.setattr(vacuous, "listed_vacuous", lambda: [entry])
    refused = [row for row in vacuous.refuse_vacuous(rows) if row.verdict != "equivalent"]
    assert {(row.tap, row.verdict) for row in refused} == {("grad/head.bias", "undecided")}
    assert all(row.reason == "vacuous.yaml: it is not vacuous; remove it" for row in refused)
    other = entry | {"taps": ["gradients/grad/no such tap"]}  # of a case that was not recorded
    monkeypatch.setattr(vacuous, "listed_vacuous", lambda: [other])
    assert vacuous.refuse_vacuous(rows) == rows


def test_each_listed_vacuous_tap_has_a_reason():
    known = {*BY_NAME, *BY_GOLDEN}
    for entry in vacuous.listed_vacuous():
        assert entry.keys() <= {"taps", "cases", "why"} and entry["why"] and entry["taps"]
        assert set(entry.get("cases", ())) <= known
