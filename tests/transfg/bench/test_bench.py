"""Subjects, counts, statistics and the dialogue with workers; no framework is imported."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from transfg.app import app
from transfg.bench import runner
from transfg.bench.flops import peak_flops, selection_flops, step_flops
from transfg.bench.results import (
    Spread,
    as_record,
    input_summary,
    linearity,
    memory_ratio,
    print_table,
    ratio,
    state_bytes,
)
from transfg.bench.runner import Measurement, measure
from transfg.bench.subject import parse_subject
from transfg_core.config.loading import build_config, load_config
from transfg_core.errors import RunFailed, UserError, is_out_of_memory
from transfg_core.machine import forget_peak_rss, peak_rss
from transfg_core.models import convnet, vit

CUB = Path(__file__).parents[3] / "configs/cub/overlap.yaml"
VIT_B = {
    "model": {"placement": "none", "size": "B", "patch": 16, "classes": 1000},
    "data": {"crop": 224, "resize": None},
    "optim": {"warmup": 0},
}


def config(**sections):
    """ViT-B/16 at 224 pixels, and what is changed in it."""
    tree = {name: VIT_B.get(name, {}) | sections.get(name, {}) for name in {*VIT_B, *sections}}
    return build_config(tree, "test")


# --- subjects


def test_subjects():
    found = parse_subject("jittor:vit data.crop=224 data.resize=256")
    assert (found.backend, found.method) == ("jittor", "vit")
    made = found.config(CUB, ["train.accumulation=1"], 4)
    assert made.model.placement == "none" and made.data.crop == (224, 224)
    assert made.train.batch_size == 4 and made.model.pretrained is None
    assert made.model.classes == 200
    assert parse_subject("torch").method == "transfg"


def test_readers_are_subjects_of_their_own():
    assert parse_subject("loader").method == "float32" and parse_subject("loader").reads
    assert parse_subject("loader:uint8 data.threads=1").method == "uint8"
    assert parse_subject("torchvision").backend == "torchvision"
    for text in ("loader:vit", "torchvision:uint8", "torch:uint8"):
        with pytest.raises(UserError, match="with --work input loader, loader:uint8 or torch"):
            parse_subject(text)


def test_images_per_core_count_processor_time():
    """Twice the time, half the processor time."""
    first = Measurement("torchvision", "torchvision", "float32", "input", 8, {})
    other = Measurement("loader", "loader", "float32", "input", 8, {})
    first.seconds, first.cpu = [1.0, 1.0, 4.0], [2.0, 2.0, 2.0]
    other.seconds, other.cpu = [2.0, 2.0, 2.0], [1.0, 1.0, 0.5]
    found = input_summary(other, first)
    assert found["images_per_second"] == Spread(4.0, 4.0, 4.0)
    assert found["faster"] == Spread(0.5, 0.5, 2.0)
    assert found["images_per_core_second"] == Spread(8.0, 8.0, 16.0)
    assert found["faster_per_core"] == Spread(2.0, 2.0, 4.0)


BUSY = """
import subprocess, sys, time
from transfg_core.machine import cpu_seconds
began = cpu_seconds()
child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
while cpu_seconds() - began < 0.3:
    time.sleep(0.05)
child.kill()
"""


def test_processor_time_includes_children():
    done = subprocess.run(
        [sys.executable, "-c", BUSY], text=True, stdout=subprocess.PIPE, timeout=60
    )
    assert done.returncode == 0


@pytest.mark.parametrize("text", ["tensorflow", "torch:fast", ":vit", "torch:"])
def test_subjects_that_there_are_not(text):
    if text == "torch:":
        assert parse_subject(text).method == "transfg"
        return
    with pytest.raises(UserError, match="expected BACKEND"):
        parse_subject(text)


def test_the_published_method_has_one_fusion():
    with pytest.raises(UserError, match="expected model.fusion matmul"):
        parse_subject("torch:published model.fusion=add").config(CUB, ["train.accumulation=1"], 1)


def test_the_published_method_is_of_a_vit():
    config = CUB.parents[1] / "toy/convnet.yaml"
    with pytest.raises(UserError, match="torch:published: expected model.name vit, found convnet"):
        parse_subject("torch:published").config(config, [], 1)
    settings = parse_subject("torch").config(config, ["data.crop=40"], 2)
    assert step_flops(settings, "infer") == 2 * convnet.forward_flops(settings.model, (40, 40))
    assert selection_flops(settings) is None


# --- operations


def image_flops(config):
    return vit.forward_flops(config.model, config.data.crop)


def test_operations_of_vit_b():
    """17.58 billion products and sums at 224 pixels, as timm and fvcore count it (norms, softmax
    and GELU left out)."""
    assert image_flops(config()) == pytest.approx(2 * 17.56e9, rel=5e-3)
    # 12 blocks of 4 D² + 2 D M products a token, and two of T² D a block
    tokens = 197
    by_hand = 12 * (tokens * 12 * 768**2 + 2 * tokens**2 * 768)
    by_hand += 196 * 768**2 + 768 * 1000
    assert image_flops(config()) == 2 * by_hand


def test_the_part_layer_is_cheap_and_a_training_step_three_passes():
    parts = config(model={"placement": "transfg"})
    assert image_flops(parts) / vit.forward_flops(
        config().model, config().data.crop
    ) == pytest.approx(11 / 12, abs=0.01)
    assert step_flops(parts, "train") == 3 * step_flops(parts, "infer")
    assert step_flops(parts, "train") == 3 * parts.train.batch_size * vit.forward_flops(
        parts.model, parts.data.crop
    )
    assert step_flops(parts, "selection") is None
    assert selection_flops(parts) == 10 * 2 * 197 * 197 * (768 + 12)


def test_peaks():
    assert peak_flops("NVIDIA H200", "bfloat16") == 989.4e12
    assert peak_flops("NVIDIA H200", "float64") is None
    assert peak_flops("Intel Xeon", "float32") is None


# --- statistics


def measurement(subject="a", seconds=(1.0, 2.0, 3.0), **facts):
    facts = {"peak": 4 * 2**20, "batch": 2} | facts
    tree = load_config(CUB, ["model.classes=200"]).model_dump(mode="json")
    return Measurement(
        subject, "torch", "transfg", "train", config=tree, seconds=list(seconds), **facts
    )


def test_ratios_are_taken_round_by_round():
    """A round in which the machine was slow says nothing about either."""
    slow = measurement(seconds=(1, 10, 1))
    assert ratio(measurement(seconds=(2, 20, 2)), slow) == Spread(2, 2, 2)
    assert ratio(measurement(seconds=()), slow) is None


def test_how_far_from_linear():
    found = linearity(
        [measurement(seconds=[t], batch=b) for b, t in ((2, 9), (4, 4), (8, 8.4), (16, 16))]
    )
    assert found == {"a": {8: pytest.approx(0.05), 16: 0.0}}


def test_what_a_step_must_hold():
    held = state_bytes(config())
    assert held["parameters"] == held["gradients"] == held["optimiser"] == 4 * 86_567_656
    adam = state_bytes(config(optim={"name": "adam", "warmup": 0}))
    assert adam["optimiser"] == 2 * adam["parameters"]


def test_record_and_table(capsys):
    one, other = measurement(), measurement("b", (2.0, 2.0, 6.0), peak=2 * 2**20)
    lost = measurement("c", (), failed="out of memory")
    record = json.loads(json.dumps(as_record([one, other, lost], [one] * 3)))
    told = [row["summary"] for row in record["measurements"]]
    assert told[1]["ratio"] == {"median": 2.0, "least": 1.0, "most": 2.0}
    assert told[1]["memory_ratio"] == 0.5 and told[2]["seconds"] is None
    assert told[0]["memory"]["rest"] == 0 and told[0]["images_per_second"] == 1.0
    print_table([one, other, lost], [one] * 3)
    text = capsys.readouterr().out
    assert "2.00 (1.00 to 2.00)" in text and "out of memory" in text


# --- workers


WORKER = """
import json, os, sys
answers = open(json.loads(sys.argv[1])["answers"], "w", buffering=1)
def say(**facts):
    print(json.dumps(facts), file=answers)
say(**{{"started": 1, "first": 2, "base": 3, "device": {{}}}})
for number, line in enumerate(sys.stdin):
    if line.strip() == "end":
        say(peak=9)
        break
    {extra}
    say(seconds=number, cpu=number)
"""


def stand_in(monkeypatch, tmp_path, **scripts):
    """Workers that run the given script instead of a backend, by the subject's backend."""
    real = runner.subprocess.Popen

    def popen(command, **options):
        job = json.loads(command[-1])
        path = tmp_path / f"{job['backend']}.py"
        path.write_text(WORKER.format(extra=scripts.get(job["backend"], "")))
        return real([sys.executable, str(path), command[-1]], **options)

    monkeypatch.setattr(runner.subprocess, "Popen", popen)
    subjects = [parse_subject("torch"), parse_subject("jittor")]
    return subjects, [load_config(CUB)] * 2


def test_warm_up_is_not_kept(monkeypatch, tmp_path):
    subjects, configs = stand_in(monkeypatch, tmp_path)
    one, other = measure(subjects, "train", configs, rounds=3, warmup=2)
    assert one.seconds == other.seconds == [2, 3, 4]
    assert (one.first, one.base, one.peak) == (2, 3, 9)


def test_a_worker_that_ends_does_not_end_the_others(monkeypatch, tmp_path):
    subjects, configs = stand_in(monkeypatch, tmp_path, torch="sys.exit(3)")
    one, other = measure(subjects, "train", configs, rounds=2, warmup=0)
    assert one.failed == "out of memory" and not one.seconds
    assert other.seconds == [0, 1] and not other.failed


def test_a_worker_that_is_killed(monkeypatch, tmp_path):
    died = "os.kill(os.getpid(), 9)"
    subjects, configs = stand_in(monkeypatch, tmp_path, torch=died, jittor=died)
    found = measure(subjects, "train", configs, rounds=1, warmup=0)
    assert {one.failed for one in found} == {"killed, most likely out of memory"}


def test_a_worker_that_closes_its_pipe_and_goes_on_is_ended(monkeypatch, tmp_path):
    monkeypatch.setattr(runner, "LAST_WORDS", 0.2)
    deaf = "answers.close(); import time; time.sleep(60)"
    subjects, configs = stand_in(monkeypatch, tmp_path, torch=deaf)
    one, other = measure(subjects, "train", configs, rounds=1, warmup=0)
    assert one.failed and other.seconds == [0]


def test_a_subject_that_ended_early_has_no_peak_and_no_ratio():
    device, silent = measurement(), measurement("b", peak=None)
    assert memory_ratio(silent, device) is None and memory_ratio(device, device) == 1
    assert as_record([silent], [device])["measurements"][0]["summary"]["memory"] is None


@pytest.mark.parametrize(
    "text",
    ["CUDA out of memory. Tried", "DefaultCPUAllocator: can't allocate memory", "std::bad_alloc"],
)
def test_what_says_that_memory_is_short(text):
    assert is_out_of_memory(RuntimeError(text))


def test_the_peak_can_be_forgotten():
    """What was freed before the work does not count as its peak."""
    block = bytearray(200 * 2**20)
    del block
    before = peak_rss()
    forget_peak_rss()
    assert peak_rss() < before - 100 * 2**20


def call(*args):
    return CliRunner().invoke(app, ["bench", str(CUB), "train.accumulation=1", *args])


def test_a_size_that_fails_does_not_lose_the_others(monkeypatch, tmp_path):
    stand_in(monkeypatch, tmp_path, torch="sys.exit(3)")
    out = tmp_path / "b.json"
    found = call("--subject", "torch", "--batch", "1", "--batch", "2", "--out", str(out))
    assert isinstance(found.exception, RunFailed) and "out of memory" in found.stdout
    assert len(json.loads(out.read_text())["measurements"]) == 2


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--work", "dance"], "--work dance: expected one of train"),
        (["--work", "input", "--subject", "torch"], "reads with loader or torchvision"),
        (["--subject", "loader"], "any other work is done by a backend"),
        (["--work", "input"], "--turn 1: expected 4 or more"),
        (["--subject", "torch:real-input"], "--turn 1: expected 4 or more"),
        (["--subject", "torch", "--subject", "torch"], "given twice"),
        (["--out", "no/b.json"], "no such folder"),
    ],
)
def test_what_is_refused(args, words):
    found = call(*args)
    assert isinstance(found.exception, UserError) and words in str(found.exception)
