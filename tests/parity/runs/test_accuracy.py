"""Comparison of run folders that the tests write: verdicts, refusals, printed texts."""

import json

import numpy as np
import pytest

from parity.runs.accuracy import compare_accuracy, exit_code, print_accuracy
from parity.runs.loss_curves import compare_loss_curves
from transfg_core.config.loading import load_config
from transfg_core.errors import UserError
from transfg_core.run.folder import RunFolder

CLASSES = 20


@pytest.fixture
def write(tmp_path):
    """Function that writes the folder of one run and gives its path."""

    def write(
        name, seed=1, wrong=(), images=2000, backend="torch", overrides=(), finish=True, losses=()
    ):
        settings = [f"run.dir={tmp_path}", f"run.name={name}", f"run.seed={seed}", *overrides]
        with RunFolder.create(load_config(None, settings)) as run:
            for number, loss in enumerate(losses, start=1):
                run.log({"kind": "train", "update": number, "loss": loss})
            end = "finish" if finish else "start"
            run.log({"kind": "event", "event": end, "backend": backend, "update": 1000})
            labels = np.arange(images) % CLASSES
            guesses = labels.copy()
            guesses[list(wrong)] = (labels[list(wrong)] + 1) % CLASSES
            names = [f"{k:05d}.jpg" for k in range(images)]
            run.write_predictions(names, labels, np.eye(CLASSES)[guesses])
        return run.path

    return write


def errors(share, seed, images=2000):
    """Indices of the wrong images: `share` of all, different for each seed."""
    rng = np.random.default_rng(seed)
    return rng.permutation(images)[: round(share * images)]


def two_sides(write, seeds, extra=0, churn=4):
    """Runs of the twins by seed: the second has `churn` other wrong images, and `extra` more."""
    left, right = [], []
    for seed in seeds:
        wrong = errors(0.1, seed)
        others = np.setdiff1d(np.arange(2000), wrong)
        fresh = np.random.default_rng(seed + 99).permutation(others)[: churn + extra]
        left.append(write(f"one{seed}", seed, wrong))
        moved = np.concatenate([wrong[churn:], fresh])
        right.append(write(f"two{seed}", seed, moved, backend="jittor"))
    return left, right


def test_twins_over_three_seeds(write):
    left, right = two_sides(write, (3, 1, 2))
    found = compare_accuracy(left, right[::-1], margin=0.01)
    assert found.baseline.seeds == found.candidate.seeds == (1, 2, 3)
    assert found.baseline.accuracies == pytest.approx((0.9, 0.9, 0.9))
    assert found.candidate.backends == ("jittor",) * 3
    assert found.images.difference == pytest.approx(found.seeds.difference)
    assert [tuple(pair[:2]) for pair in found.images.pairs] == [(4, 4)] * 3
    assert found.seeds.paired and found.seeds.spread == pytest.approx(0, abs=1e-12)
    assert found.seeds.standard_error == found.images.standard_error > 0
    assert found.images.verdict == found.seeds.verdict == found.verdict == "equivalent"
    assert compare_accuracy(left, right, margin=0.001).verdict == "undecided"


def test_a_planted_difference_of_two_points(write):
    left, right = two_sides(write, (1, 2, 3, 4), extra=40)
    found = compare_accuracy(left, right, margin=0.005)
    assert found.images.difference == pytest.approx(-0.02)
    assert found.images.verdict == found.seeds.verdict == found.verdict == "different"
    swapped = compare_accuracy(right, left, margin=0.005)
    assert swapped.seeds.difference == pytest.approx(0.02) and swapped.verdict == "different"


def test_one_pair_says_nothing_about_training(write):
    wrong = errors(0.1, 0)
    same = compare_accuracy([write("a", wrong=wrong)], [write("b", wrong=wrong)], margin=0.01)
    assert (same.images.verdict, same.seeds.verdict) == ("equivalent", "undecided")
    assert same.verdict == "undecided"
    worse = compare_accuracy([write("c")], [write("d", wrong=wrong)], margin=0.01)
    assert (worse.images.verdict, worse.verdict) == ("different", "undecided")


def test_equal_predictions_of_few_images_are_undecided(write):
    sides = [[write(f"{side}{seed}", seed, images=60) for seed in range(5)] for side in "ab"]
    found = compare_accuracy(*sides, margin=0.01)
    assert (found.images.verdict, found.seeds.verdict) == ("undecided", "undecided")
    assert found.verdict == "undecided"
    assert found.images.images_needed > 60 and found.seeds.seeds_needed is None


def test_other_seeds_on_the_other_side_are_compared_without_pairs(write):
    left = [write(f"a{seed}", seed, errors(0.1, seed)) for seed in (1, 2, 3)]
    right = [write(f"b{seed}", seed, errors(0.1, seed)) for seed in (4, 5)]
    found = compare_accuracy(left, right, margin=0.05)
    assert not found.seeds.paired and found.seeds.seeds == (3, 2)
    assert found.images.pairs == ()
    single = compare_accuracy(left[:1], right[:1], margin=0.05)  # still a pair of checkpoints
    assert len(single.images.pairs) == 1 and single.verdict == "undecided"


def refusal(left, right, margin=0.01):
    with pytest.raises(UserError) as caught:
        compare_accuracy(left, right, margin)
    return str(caught.value)


def test_settings_that_differ_are_named(write):
    left, right = write("a"), write("b", overrides=["optim.lr=0.01", "loss.margin=0.3"])
    text = refusal([left], [right])
    assert "optim.lr: 0.03 -> 0.01" in text and "loss.margin: 0.4 -> 0.3" in text
    assert "run.name" not in text and "run.seed" not in text


def test_settings_that_differ_within_a_side_are_named(write):
    left = [write("a", 1), write("b", 2, overrides=["train.steps=2000"])]
    assert "train.steps: 1000 -> 2000" in refusal(left, [write("c", 1), write("d", 2)])


def test_seeds_without_a_partner_are_named(write):
    left = [write(f"a{seed}", seed) for seed in (1, 2, 3)]
    right = [write(f"b{seed}", seed) for seed in (2, 3, 7, 9)]
    text = refusal(left, right)
    assert "baseline 1; candidate 7, 9" in text and "2," not in text


def test_a_seed_twice_on_one_side_is_refused(write):
    left = [write("a", 4), write("b", 4)]
    assert "more than one run of seed 4" in refusal(left, [write("c", 4)])


def test_a_run_is_not_compared_with_itself(write):
    path = write("a")
    assert "with itself" in refusal([path], [path.parent / "." / "a"])


def test_runs_without_a_final_evaluation_are_refused(write):
    left = write("a")
    assert "unfinished at update 1000 of 1000" in refusal([left], [write("b", finish=False)])
    bare = write("c")
    (bare / "predictions.csv").unlink()
    assert "predictions.csv" in refusal([left], [bare])
    assert "expected the folder of a run" in refusal([left], [left.parent])
    assert "at least one run" in refusal([left], [])


def test_other_test_images_or_labels_are_refused(write):
    left, fewer, other = write("a"), write("b", images=1999), write("c")
    assert "1 test images are in only one of them, such as 01999.jpg" in refusal([left], [fewer])
    text = (other / "predictions.csv").read_text()
    (other / "predictions.csv").write_text(text.replace("00007.jpg,7,", "00007.jpg,8,"))
    text = refusal([left], [other])
    assert "image 00007.jpg has label 7 in the first and 8 in the second" in text


@pytest.mark.parametrize("margin", [0.0, -0.1, 1.0, float("nan")])
def test_a_margin_that_is_no_fraction_is_refused(write, margin):
    assert "margin" in refusal([write("a")], [write("b")], margin)


def test_exit_codes():
    words = ("equivalent", "different", "undecided")
    assert [exit_code(word) for word in words] == [0, 1, 2]


def test_the_record_is_json_and_complete(write):
    left, right = two_sides(write, (1, 2, 3))
    found = compare_accuracy(left, right, margin=0.01)
    record = json.loads(json.dumps(found.to_record(), allow_nan=False))
    assert record["verdict"] == "equivalent" and record["margin"] == 0.01
    assert record["candidate"]["accuracies"] == pytest.approx([0.9, 0.9, 0.9])
    assert record["images"]["pairs"][0] == {"only_baseline": 4, "only_candidate": 4, "p": 1.0}
    assert record["images"]["interval"] == pytest.approx(list(found.images.interval))
    assert record["seeds"]["verdict"] == "equivalent" and record["seeds"]["p"] < 0.05


def test_printed_tables(write, capsys):
    left, right = two_sides(write, (1, 2, 3))
    print_accuracy(compare_accuracy(left, right, margin=0.01))
    text = capsys.readouterr().out
    expected = (
        "baseline",
        "jittor",
        "1 2 3",
        "90.00",
        "images: 2000",
        "seeds: 3, paired",
        "+0.00",
    )
    assert [words for words in expected if words not in text] == []
    assert "equivalent: the two sides reach the same accuracy within the margin" in text
    assert "margin 1 points" in text


def test_printed_tables_with_too_little_evidence(write, capsys):
    print_accuracy(compare_accuracy([write("a", images=50)], [write("b", images=50)], 0.005))
    text = capsys.readouterr().out
    assert "3 seeds a side, or more" in text and "1171 images" in text
    assert text.splitlines()[-1].startswith("undecided: the evidence is too little")


# --- losses


def falling(seed, updates=120):
    rng = np.random.default_rng(seed)
    return 1 + np.exp(-np.arange(updates) / 40) + rng.normal(0, 0.01, updates).cumsum() / 10


def drifting(losses, sign, rate=1e-9):
    """The same losses with a relative difference that doubles every three updates."""
    return losses * (1 + sign * rate * 2 ** (np.arange(len(losses)) / 3).clip(max=24))


@pytest.fixture
def trained(write):
    """Baseline runs of five seeds, as many candidates, three repetitions of seed 2."""
    left = [write(f"a{seed}", seed, losses=falling(seed)) for seed in range(5)]
    right = [
        write(f"b{seed}", seed, losses=drifting(falling(seed), 1.5), backend="jittor")
        for seed in (2, 3, 0, 1, 4)
    ]
    again = [write(f"r{sign}", 2, losses=drifting(falling(2), sign)) for sign in (-1, 1, 2)]
    return left, right, again


def test_losses_of_twins(trained):
    found = compare_loss_curves(*trained)
    comparison = found.comparison
    assert list(found.updates) == list(range(1, 121))
    assert comparison.horizon == 60  # 2 ** 20 * 1e-9 is the first above 1e-3
    assert (comparison.early, comparison.late) == ("equivalent", "equivalent")
    assert comparison.gap[59] == pytest.approx(1.5e-9 * 2 ** (59 / 3), rel=1e-3)
    record = json.loads(json.dumps(found.to_record(), allow_nan=False))
    assert len(record["comparison"]["half_width"]) == len(record["comparison"]["at"])


def test_losses_that_leave_early_differ(trained, write):
    left, _, again = trained
    astray = write("c", 2, losses=drifting(falling(2), 1, rate=1e-6), backend="jittor")
    assert compare_loss_curves(left, [astray], again).comparison.verdict == "different"


def test_losses_without_repetitions_are_undecided(trained):
    left, right, _ = trained
    comparison = compare_loss_curves(left, right).comparison
    assert comparison.horizon is None
    assert (comparison.late, comparison.verdict) == ("equivalent", "undecided")


def test_losses_that_cannot_be_compared_are_refused(trained, write):
    left, right, again = trained
    short = write("short", 2, losses=falling(2, 50))
    with pytest.raises(UserError, match="found 50 updates to 50 and 120 to 120"):
        compare_loss_curves(left, [short])
    with pytest.raises(UserError, match="found 1 of seed 2 torch"):
        compare_loss_curves(left, right, again[:1])
    with pytest.raises(UserError, match="found 2 of seed 2 jittor, seed 2 torch"):
        other = write("other", 2, losses=falling(2), backend="jittor")
        compare_loss_curves(left, right, [again[0], other])
    with pytest.raises(UserError, match="with itself"):
        compare_loss_curves(left, right, [left[2], again[0]])
