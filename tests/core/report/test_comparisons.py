"""The tables of the papers: present only if the runs hold the comparison, and right."""

import pytest
from run_folders import write_run

from transfg_core.report.cells import all_columns, cells_of
from transfg_core.report.comparisons import comparison_tables, difference
from transfg_core.run.reading import load_runs

VIT, TRANSFG = "model.placement=none", "model.placement=transfg"
OFF = "loss.contrastive=false"


def tables(*paths):
    cells = cells_of(load_runs(paths))
    return {table.title: table for table in comparison_tables(cells, all_columns(cells))}


def test_no_comparison_no_table(tmp_path):
    one = write_run(tmp_path, "one")
    assert tables(one) == {}
    other = write_run(tmp_path, "two", backend="jittor")
    assert tables(one, other) == {}


def test_method_and_split_with_training_time(tmp_path):
    paths = [
        write_run(tmp_path, "a", VIT, "model.stride=8", top1=0.9, seconds=1800),
        write_run(tmp_path, "b", TRANSFG, "model.stride=6", "train.batch_size=4", top1=0.8),
        write_run(tmp_path, "c", TRANSFG, "model.stride=8", top1=0.7),
        write_run(tmp_path, "d", TRANSFG, "model.stride=8", "run.seed=7", top1=0.6),
    ]
    found = tables(*paths)
    assert list(found) == ["Method and split", "Methods"]
    assert found["Methods"].rows == [  # the row of overlap has no ViT
        ["non-overlap", "torch", "90.00", "1", "65.00 ± 7.07", "2", "-20.00", "", "1"]
    ]
    table = found["Method and split"]
    assert list(table.header) == [
        "method", "backend", "non-overlap: top-1 %", "n", "hours", "overlap: top-1 %", "n", "hours",
        "overlap - non-overlap, points", "95% interval", "pairs",
    ]  # fmt: skip
    assert table.rows == [
        ["ViT", "torch", "90.00", "1", "0.50", "", "", "", "", "", ""],
        [
            "TransFG",
            "torch",
            "65.00 ± 7.07",
            "2",
            "1.00 ± 0.00",
            "80.00",
            "1",
            "1.00",
            "+10.00",
            "",
            "1",
        ],
    ]
    assert "Within a row also differ: train.batch_size" in table.note


def test_contrastive_loss_on_and_off(tmp_path):
    paths = [
        write_run(tmp_path, f"{backend}{seed}{bool(extra)}", f"run.seed={seed}", *extra,
                  backend=backend, top1=top1)
        for backend, gains in (("torch", (0.02, 0.04, 0.06)), ("jittor", (0.0, 0.0, 0.0)))
        for seed, gain in enumerate(gains)
        for extra, top1 in (([OFF], 0.5), ([], 0.5 + gain))
    ]  # fmt: skip
    table = tables(*paths)["Contrastive loss"]
    assert table.rows[0][:6] == ["TransFG", "torch", "50.00 ± 0.00", "3", "54.00 ± 2.00", "3"]
    # Student's t at 2 degrees of freedom is 4.3027; 4.3027 * 2 / sqrt(3) = 4.97
    assert table.rows[0][6:] == ["+4.00", "-0.97 .. +8.97", "3"]
    assert table.rows[1][6:] == ["+0.00", "", "3"]


def test_margins_each_with_the_run_without_the_loss(tmp_path):
    margins = ("0.2", "0.4", "0.1")
    paths = [write_run(tmp_path, m, f"loss.margin={m}", top1=float(m)) for m in margins]
    paths.append(write_run(tmp_path, "off", OFF, "loss.margin=0.4", top1=0.6))
    found = tables(*paths)
    margin = found["Margin of the contrastive loss"]
    assert list(margin.header[3:]) == [
        "margin 0.1: top-1 %", "n", "margin 0.2: top-1 %", "n", "margin 0.4: top-1 %", "n",
    ]  # fmt: skip
    assert margin.rows == [["TransFG", "on", "torch", "10.00", "1", "20.00", "1", "40.00", "1"]]
    loss = found["Contrastive loss"]
    assert [row[1] for row in loss.rows] == ["0.1", "0.2", "0.4"]
    assert {row[3] for row in loss.rows} == {"60.00"} and loss.rows[0][5] == "10.00"
    assert "also differ" not in loss.note


def test_fusion_of_a_plain_model_does_not_apply(tmp_path):
    paths = [write_run(tmp_path, f, f"model.fusion={f}", top1=0.5) for f in ("mul", "add")]
    paths.append(write_run(tmp_path, "vit", VIT, "model.fusion=mul", top1=0.9))
    found = tables(*paths)
    fusion = found["Fusion of attention maps"]
    assert fusion.rows == [["TransFG", "torch", "50.00", "1", "50.00", "1", "+0.00", "", "1"]]
    assert [name for name in fusion.header if "top-1" in name] == [
        "fusion add: top-1 %", "fusion mul: top-1 %",
    ]  # fmt: skip
    assert [row[0] for row in found["Methods"].rows] == ["add", "mul"]
    assert {row[2] for row in found["Methods"].rows} == {"90.00"}  # the same ViT beside both
    assert [row[:2] for row in found["Method and split"].rows] == [
        ["ViT", ""], ["TransFG", "add"], ["TransFG", "mul"],
    ]  # fmt: skip


def test_cautions_stand_in_every_table(tmp_path):
    paths = [write_run(tmp_path, "a", caution="Seen before"), write_run(tmp_path, "b", OFF)]
    assert tables(*paths)["Contrastive loss"].note.endswith("Seen before.")


@pytest.mark.parametrize(
    ("seeds", "tops", "gap", "reach"),
    [
        ((1, 2), (0.55, 0.75), 10, 12.7062 * 5),  # gaps of 5 and 15, t with 1 degree of freedom
        ((3, 4), (0.62, 0.72), 12, 4.3027 * 50**0.5),  # Welch: variances of 50, 2 degrees
    ],
)
def test_common_seeds_are_pairs(tmp_path, seeds, tops, gap, reach):
    """Seed 9 has no partner, so that it does not count among pairs."""
    known = [(1, 0.5), (2, 0.6), *([(9, 0.1)] if seeds == (1, 2) else [])]
    left = [write_run(tmp_path, f"a{k}", OFF, f"run.seed={k}", top1=top1) for k, top1 in known]
    pairs = zip(seeds, tops, strict=True)
    right = [write_run(tmp_path, f"b{k}", f"run.seed={k}", top1=top1) for k, top1 in pairs]
    found = difference(*cells_of(load_runs([*left, *right])))
    assert (found[0], found[2]) == (f"{gap:+.2f}", "2" if seeds == (1, 2) else "")
    low, high = (float(part) for part in found[1].split(" .. "))
    assert (low, high) == pytest.approx((gap - reach, gap + reach), abs=0.01)


def test_an_interval_around_zero_is_no_proof_of_nothing(tmp_path):
    paths = [write_run(tmp_path, "a"), write_run(tmp_path, "b", OFF)]
    note = tables(*paths)["Contrastive loss"].note
    assert "holds 0 shows neither an effect nor that there is none" in note
    assert "not corrected for the number of rows" in note


def test_the_folds_of_a_seed_count_once(tmp_path):
    """Gaps of 5 and 15 points at seed 1, and of 20 at seed 2: 15 points over 2 seeds."""
    tops = {(1, 0): 0.55, (1, 1): 0.65, (2, 0): 0.7}
    paths = []
    for (seed, fold), top1 in tops.items():
        of = [f"run.seed={seed}", "data.folds=2", "data.split=random", f"data.fold={fold}"]
        paths.append(write_run(tmp_path, f"a{seed}{fold}", OFF, *of, top1=0.5))
        paths.append(write_run(tmp_path, f"b{seed}{fold}", *of, top1=top1))
    gap, interval, pairs = difference(*cells_of(load_runs(paths)))
    assert (gap, pairs) == ("+15.00", "2")
    low, high = (float(part) for part in interval.split(" .. "))
    assert (low, high) == pytest.approx((15 - 12.7062 * 5, 15 + 12.7062 * 5), abs=0.01)
    one_seed = cells_of(load_runs(paths[:4]))
    assert difference(*one_seed) == ["+10.00", "", "1"]
