"""Averaged parameters (`optim.ema`) outside the backends: commands, resuming, conversions."""

import numpy as np
import pytest
import safetensors.numpy
from fake import FakeBackend
from test_experiment import EMPTY, place, trace  # noqa: F401  pytest finds the fixture by its name

from transfg_core.checkpoints.averages import evaluated_params, start_averages
from transfg_core.checkpoints.export import convert
from transfg_core.checkpoints.pretrained import build_params
from transfg_core.checkpoints.training import read_checkpoint
from transfg_core.errors import UserError
from transfg_core.explain import parts
from transfg_core.explain.parts import draw_parts
from transfg_core.schedule import ema_decay_at
from transfg_core.trained import evaluate_checkpoint

EMA = "optim.ema=0.9"
HERE = "data.root=my data"


def test_decay_grows_from_a_small_value_to_the_given_one():
    assert ema_decay_at(1, 0.999) == 2 / 11
    assert ema_decay_at(90, 0.999) == 91 / 100
    assert ema_decay_at(100_000, 0.999) == 0.999
    assert ema_decay_at(12, 0.6) == 13 / 22 < 0.6 and ema_decay_at(13, 0.6) == 0.6


def sections(path):
    arrays = read_checkpoint(path).arrays
    return {
        section: {k.partition("/")[2]: v for k, v in arrays.items() if k.startswith(section)}
        for section in ("param/", "ema/")
    }


def test_evaluations_use_the_averages_and_say_so(place):  # noqa: F811  the imported fixture
    assert place.train(EMA) == 0
    records = place.records("eval")
    assert [record["averaged"] for record in records] == [True, True]
    result, _ = evaluate_checkpoint(place.checkpoint(), "torch", [HERE])
    assert result.averaged and result.loss == pytest.approx(records[-1]["loss"], rel=1e-12)
    last, _ = evaluate_checkpoint(place.checkpoint(), "torch", [HERE, "optim.ema=null"])
    assert not last.averaged and last.loss != result.loss
    assert not place.backends[-2].averages, "an evaluation keeps one copy of the parameters"
    stored = sections(place.checkpoint())
    held = place.backends[-2].params["head.bias"]
    assert np.array_equal(held, stored["ema/"]["head.bias"])
    assert np.array_equal(place.backends[-1].params["head.bias"], stored["param/"]["head.bias"])


def test_a_run_without_averages_has_none_to_evaluate(place):  # noqa: F811  the imported fixture
    place.train()
    assert not any(record["averaged"] for record in place.records("eval"))
    with pytest.raises(UserError, match=r"averaged parameters \(ema/.*found none.*optim.ema=null"):
        evaluate_checkpoint(place.checkpoint(), "torch", [HERE, EMA])


def test_a_run_with_averages_resumes_as_if_unbroken(place):  # noqa: F811  the imported fixture
    place.train(EMA, "run.name=whole")
    place.kill_at(4)
    with pytest.raises(KeyboardInterrupt):
        place.train(EMA)
    place.at_update = None
    place.train(EMA, resume=True)
    whole = place.folder / "runs/whole/checkpoints/last.safetensors"
    for section, values in sections(whole).items():
        found = sections(place.checkpoint())[section]
        assert all(np.array_equal(found[name], value) for name, value in values.items())
    place.refuses(r"optim.ema: 0.9 -> None|optim.ema: 0.9 -> null", resume=True)


@pytest.mark.parametrize(("before", "after"), [((), (EMA,)), ((EMA,), ())])
def test_another_run_may_begin_or_end_averaging(place, capsys, before, after):  # noqa: F811  the imported fixture
    place.train(*before)
    start = sections(place.checkpoint())
    place.train(*after, "run.name=more", "train.steps=8", resume_from=place.checkpoint())
    said = capsys.readouterr().err
    more = sections(place.folder / "runs/more/checkpoints/last.safetensors")
    if after:
        assert "the averages of optim.ema start at these parameters" in " ".join(said.split())
        name = "cls_token"  # the fake backend does not train it
        assert np.array_equal(more["ema/"][name], start["param/"][name])
        assert (more["ema/"]["head.bias"] != more["param/"]["head.bias"]).any()
    else:
        assert "its averaged parameters are left out" in " ".join(said.split())
        assert not more["ema/"]


def test_other_runs_start_from_the_averages(place, tmp_path):  # noqa: F811  the imported fixture
    place.train(EMA, "model.placement=none")
    averages = sections(place.checkpoint())["ema/"]
    config = place.config(
        "model.placement=none", "model.classes=2", f"model.pretrained={place.checkpoint()}"
    )
    params, report = build_params(config)
    assert all(np.array_equal(params[name], value) for name, value in averages.items())
    assert "these are the averaged parameters of the run" in report.summary()
    said = convert(str(place.checkpoint()), tmp_path / "timm.safetensors")
    assert "averaged parameters (optim.ema)" in said
    stored = safetensors.numpy.load_file(tmp_path / "timm.safetensors")
    assert np.array_equal(stored["head.bias"], averages["head.bias"])


def test_frozen_parameters_have_no_average():
    arrays = {"param/a": np.zeros(2), "param/b": np.ones(3), "ema/a": np.full(2, 7.0)}
    assert evaluated_params(arrays, True, "x")["b"].tolist() == [1, 1, 1]
    assert evaluated_params(arrays, True, "x")["a"].tolist() == [7, 7]
    assert evaluated_params(arrays, False, "x")["a"].tolist() == [0, 0]
    started, note = start_averages({"param/a": np.ones(2), "param/b": np.ones(3)}, True, ["a"])
    assert note and sorted(started) == ["ema/a", "param/a", "param/b"]
    assert start_averages(arrays, True, ["a"]) == (arrays, "")


def test_pictures_say_which_parameters(place, capsys, monkeypatch):  # noqa: F811  the imported fixture
    place.train(EMA)
    monkeypatch.setattr(parts, "part_picture", lambda *_: EMPTY)
    monkeypatch.setattr(FakeBackend, "trace", trace, raising=False)
    for more, said in (((), True), (("optim.ema=null",), False)):
        capsys.readouterr()
        draw_parts(place.checkpoint(), "torch", [HERE, *more], 4, place.folder / "p.png")
        assert ("averaged parameters" in " ".join(capsys.readouterr().err.split())) == said
