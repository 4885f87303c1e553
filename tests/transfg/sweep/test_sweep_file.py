"""Sweep files: the cells of a grid with their names and settings, and every problem at once."""

from pathlib import Path

import pytest

from transfg.sweep.file import read_sweep_file
from transfg.sweep.grid import build_sweep
from transfg_core.config.loading import load_config
from transfg_core.errors import UserError

ROOT = Path(__file__).resolve().parents[3]
SWEEPS = sorted((ROOT / "configs/sweeps").glob("*/*.yaml"))


def sweep_of(folder, text, *overrides, base="model: {patch: 8}\n"):
    """The sweep of a file with this text below `base: base.yaml`."""
    (folder / "base.yaml").write_text(base)
    (folder / "study.yaml").write_text(f"base: base.yaml\n{text}")
    return build_sweep(read_sweep_file(folder / "study.yaml"), overrides)


def problems_of(folder, text, *overrides, **options):
    """The lines of the message about this text."""
    with pytest.raises(UserError) as caught:
        sweep_of(folder, text, *overrides, **options)
    first, *lines = str(caught.value).split("\n  ")
    assert (
        first
        == f"{folder / 'study.yaml'}: {len(lines)} problem{'s'[: len(lines) > 1]} in the sweep"
    )
    return lines


def names_of(sweep):
    return [cell.name for cell in sweep.cells]


GRID = """\
set: [train.steps=700, run.dir=out]
grid:
  split:
    nonoverlap: [model.stride=8]
    overlap: [model.stride=6, train.batch_size=4]
  loss.margin: [0, 0.4]
  backend: [torch, jittor]
  run.seed: [1, 2]
"""


def test_cells_are_every_combination_in_order(tmp_path):
    sweep = sweep_of(tmp_path, GRID)
    names = names_of(sweep)
    assert len(names) == 16 and sweep.folder == Path("out/study")
    assert names[:3] == [
        "nonoverlap_margin-0_torch_seed-1",
        "nonoverlap_margin-0_torch_seed-2",
        "nonoverlap_margin-0_jittor_seed-1",
    ]
    last = sweep.cells[-1]
    assert last.name == "overlap_margin-0.4_jittor_seed-2" and last.backend == "jittor"
    config = last.config
    assert (config.model.stride, config.train.batch_size, config.loss.margin) == (6, 4, 0.4)
    assert (config.train.steps, config.run.seed, config.run.name) == (700, 2, last.name)
    assert last.folder == Path("out/study") / last.name
    assert last.log == Path("out/study") / f"{last.name}.log"
    assert sweep.cells[0].config.model.stride == 8


def test_the_command_of_a_cell_builds_its_configuration(tmp_path):
    for cell in sweep_of(tmp_path, GRID, "data.root=1 #2", "optim.lr=1e-5").cells:
        command = cell.command(["data.threads=1"])
        assert command[0] == "train" and command[-3:] == ["--backend", cell.backend, "--resume"]
        config = load_config(command[1], command[2:-3])
        assert config.data.threads == 1 and config.data.root == "1 #2" and config.optim.lr == 1e-5
        data = config.data.model_copy(update={"threads": cell.config.data.threads})
        assert config.model_copy(update={"data": data}) == cell.config


def test_more_values_leave_the_names_of_the_others(tmp_path):
    few = names_of(sweep_of(tmp_path, GRID))
    text = GRID.replace("[0, 0.4]", "[0.2, 0, 0.4]").replace("[1, 2]", "[3, 1, 2]")
    many = names_of(sweep_of(tmp_path, text))
    assert set(few) < set(many) and len(many) == 36


def test_values_of_any_type(tmp_path):
    grid = """\
grid:
  data.crop: [[32, 48], 64]
  data.normalise: [half, imagenet]
  model.fusion: ["mul"]
  run.grad_checkpointing: [true, false]
  model.pretrained: [null, "weights/a b.npz", "no"]
"""
    cells = sweep_of(tmp_path, grid).cells
    assert len(cells) == 24
    first, last = cells[0], cells[-1]
    assert first.name == (
        "crop-32-48_normalise-half_fusion-mul_grad_checkpointing-true_pretrained-null"
    )
    assert first.config.data.crop == (32, 48) and first.config.model.pretrained is None
    assert last.config.model.pretrained == "no" and last.config.data.crop == (64, 64)
    assert cells[1].name.endswith("pretrained-weights-a-b.npz")


def test_an_axis_where_another_has_a_value(tmp_path):
    grid = """\
grid:
  contrastive: {ce: [loss.contrastive=false], con: [loss.contrastive=true]}
  loss.margin: [0, 0.4]
  run.seed: [1, 2]
where: {loss.margin: {contrastive: con}}
"""
    assert names_of(sweep_of(tmp_path, grid)) == [
        "ce_seed-1", "ce_seed-2",
        "con_margin-0_seed-1", "con_margin-0_seed-2", "con_margin-0.4_seed-1",
        "con_margin-0.4_seed-2",
    ]  # fmt: skip


def test_exclusions(tmp_path):
    text = GRID + "exclude: [{split: overlap, loss.margin: [0, 0.4]}, {run.seed: 2}]\n"
    assert names_of(sweep_of(tmp_path, text)) == [
        f"nonoverlap_margin-{margin}_{backend}_seed-1"
        for margin in ("0", "0.4")
        for backend in ("torch", "jittor")
    ]


def test_settings_of_the_command_line_replace_those_for_all(tmp_path):
    sweep = sweep_of(tmp_path, GRID, "train.steps=800", "run.dir=other")
    assert {cell.config.train.steps for cell in sweep.cells} == {800}
    assert "train.steps=700" not in sweep.cells[0].command()
    assert sweep.folder == Path("other/study")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("grid: {}\nsets: 1\nname: a/b\nset: train.steps\n", [
            "sets: unknown key; known keys: base, name, set, grid",
            "name: expected letters, digits and . _ + -, found 'a/b'",
            "set: expected a list such as [train.steps=500], found 'train.steps'",
            "grid: expected at least one axis with its values, found {}",
        ]),
        ("grid: {margin: [0], run.seed: 3, split: {a b: [x]}}\nexclude: {a: 1}\n", [
            "grid: margin: expected a key such as loss.margin, or named values",
            "grid: run.seed: expected values, found 3",
            "grid: split: expected a name of letters, digits and . _ + -: 'a b'",
            "grid: split: a b: 'x': expected key=value",
            "exclude: expected a list of conditions",
        ]),
        ("grid: {run.seed: [1, 1]}\n", ["grid: run.seed: two values are called 1"]),
        ("grid: {data.root: [a b, a-b]}\n", ["data.root: two values are called root-a-b"]),
        ("grid: {run.seed: [1]}\nwhere: {run.seed: {loss.margin: 0}, no: {}}\n", [
            "where: no: no such axis",
            "where: run.seed: loss.margin: no such axis before this one",
        ]),
        ("grid: {run.seed: [1]}\nwhere: {run.seed: {run.seed: 1}}\n", [
            "where: run.seed: run.seed: no such axis before this one",
        ]),
        ("grid: {run.seed: [1]}\nexclude: [{run.seed: 2}, 3]\n", [
            "exclude: run.seed: no value 2; there are 1",
            "exclude: expected axes with values",
        ]),
        ("grid: {run.seed: [1]}\ngrid: {run.seed: [2]}\n", ["grid: given twice, in lines 2 and 3"]),
        ("grid: {run.seed: [1]}\nexclude: [{run.seed: 1}]\n", ["exclude: no cell is left"]),
        ("grid: {backend: [torch, tf]}\n", [
            "backend: expected one of torch, jittor, found tf (1 of 2 cells, such as tf)"
        ]),
        ("grid: {train.batchsize: [1], model.stride: [8, 9]}\nset: [optim.lr=-1]\n", [
            "optim.lr: input should be greater than or equal to 0, found -1",
            "train.batchsize: unknown key; did you mean train.batch_size?",
            "stride 9 exceeds patch 8",
        ]),
        ("grid: {run.name: [a], run.dir: [b]}\n", [
            "run.name: the sweep names its runs", "run.dir: all cells lie in one folder",
        ]),
        ("set: [loss.margin=0]\ngrid: {loss.margin: [0, 0.2]}\n", [
            "loss.margin: is set for all cells, but an axis sets it too",
        ]),
        ("grid: {a: {x: [model.stride=8]}, model.stride: [7]}\n", [
            "model.stride: is set by the axes a and model.stride",
        ]),
        ("grid: {a: {x: [model.patch=8], y: [model.patch=8]}}\n", [
            "x and y are the same experiment; exclude one",
        ]),
        ("grid: {a: {x: [run.seed=1], x_y: [run.seed=2]}, b: {y_z: [loss.margin=0], z: []}}\n", [
            "two cells are called x_y_z; give the values other names",
        ]),
        ("grid: {a: {x: [run.seed=1], x.log: [run.seed=2]}}\n", [
            "x.log: ends in .log, as the log of another cell; give the value another name",
        ]),
    ],
)  # fmt: skip
def test_every_problem_is_listed(tmp_path, text, parts):
    lines = problems_of(tmp_path, text)
    assert len(lines) == len(parts)
    for part in parts:
        assert any(part in line for line in lines), (part, lines)


def test_a_file_that_is_no_sweep(tmp_path):
    path = tmp_path / "a.yaml"
    for text, part in (("[1]", "expected the keys base and grid"), ("{", "not readable as YAML")):
        path.write_text(text)
        with pytest.raises(UserError, match=part):
            read_sweep_file(path)
    with pytest.raises(UserError, match="check the path"):
        read_sweep_file(tmp_path / "absent.yaml")
    path.write_text("base: absent.yaml\ngrid: {run.seed: [1, 2]}")
    with pytest.raises(UserError, match="absent.yaml.*check the path"):
        build_sweep(read_sweep_file(path))


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_sweeps_of_the_project_are_valid(path):
    assert len(build_sweep(read_sweep_file(path)).cells) > 1


def test_the_ablation_on_cub50():
    cells = build_sweep(read_sweep_file(ROOT / "configs/sweeps/cub50/ablation.yaml")).cells
    assert len(cells) == 48
    (cell,) = [each for each in cells if each.name == "seed-3_vit_overlap_ce+con_jittor"]
    config = cell.config
    assert (config.run.seed, config.model.placement, config.model.stride) == (3, "none", 6)
    assert config.loss.contrastive and cell.backend == "jittor"
