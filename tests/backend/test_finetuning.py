"""Averaged and frozen parameters (`optim.ema`, `optim.frozen`) of each declared backend."""

import numpy as np
import pytest
from reference import relative

from parity.cases.case import SGD, Case, params_of
from transfg_core.backend import load_backend
from transfg_core.errors import UserError
from transfg_core.params.groups import trained_params
from transfg_core.schedule import ema_decay_at
from transfg_core.train import split_batch

AVERAGED = Case("averaged", optim=SGD | {"ema": 0.3, "weight_decay": 0.1}, accumulation=2)
HEAD = ["[!h]*"]  # all but the head is frozen
MIXED = ["patch_embed.*", "pos_embed", "blocks.0.*", "*.norm2.*", "part_layer.attn.key.*"]
ADAMW = {"name": "adamw", "lr": 1e-3, "warmup": 0, "weight_decay": 0.5}


def frozen_case(patterns, optim=ADAMW, **more):
    return Case("frozen", optim=optim | {"frozen": patterns}, **more)


def section(state, prefix):
    return {k.partition("/")[2]: v for k, v in state.items() if k.startswith(prefix)}


def update(backend, case, number, lr=0.05):
    micro = split_batch(case.batches()[number], case.accumulation)
    return backend.fetch(backend.train_step(micro, lr))


def same(left, right):
    return left.keys() == right.keys() and all(np.array_equal(left[n], right[n]) for n in left)


def test_averages_follow_each_update(twin):
    """Against float64 from the parameters after each update: a few roundings of float32."""
    backend = twin.backend(AVERAGED)
    expected = {name: value.astype(np.float64) for name, value in AVERAGED.params().items()}
    for number in range(6):  # from the third on, the decay is 0.3 itself
        update(backend, AVERAGED, number)
        keep = ema_decay_at(number + 1, 0.3)
        for name, value in params_of(backend.state()).items():
            expected[name] = keep * expected[name] + (1 - keep) * value
    averages = section(backend.state(), "ema/")
    assert averages.keys() == expected.keys()
    for name, value in expected.items():
        assert relative(averages[name], value) < 1e-6, name
    assert any(relative(averages[n], v) > 1e-3 for n, v in params_of(backend.state()).items())


def test_averaging_changes_no_training(twin):
    plain = Case("plain", optim={k: v for k, v in AVERAGED.optim.items() if k != "ema"},
                 accumulation=2)  # fmt: skip
    averaging, without = twin.backend(AVERAGED), twin.backend(plain)
    for number in range(3):
        averaging.fetch(averaging.eval_step(AVERAGED.batches()[0].images))
        assert same(update(averaging, AVERAGED, number), update(without, plain, number))
    assert same(params_of(averaging.state()), params_of(without.state()))
    assert not section(without.state(), "ema/")


def test_evaluation_uses_the_averages(twin):
    backend, images = twin.backend(AVERAGED), AVERAGED.batches()[0].images
    for number in range(3):
        update(backend, AVERAGED, number)
    state = backend.state()
    found = [backend.fetch(backend.eval_step(images)), backend.fetch(backend.rollout(images))]
    assert same(backend.state(), state)
    fresh = twin.backend(Case("fresh"))
    fresh.load_params(section(state, "ema/"))
    expected = [fresh.fetch(fresh.eval_step(images)), fresh.fetch(fresh.rollout(images))]
    assert all(map(same, found, expected))
    fresh.load_params(params_of(state))
    assert not same(found[0], fresh.fetch(fresh.eval_step(images)))


def test_a_failed_evaluation_gives_the_parameters_back(twin, monkeypatch):
    backend = twin.backend(AVERAGED)
    update(backend, AVERAGED, 0)
    state = backend.state()

    def fail(*_, **__):
        raise RuntimeError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr(backend, "apply", fail)
        with pytest.raises(RuntimeError, match="no memory"):
            backend.eval_step(AVERAGED.batches()[0].images)
    assert same(backend.state(), state)


def test_an_update_that_fails_before_the_average_counts_as_begun(twin, monkeypatch):
    """`optim/updates` then differs from the run's position, so such a state is never saved."""
    backend = twin.backend(AVERAGED)
    update(backend, AVERAGED, 0)

    def fail(*_):
        raise RuntimeError("no memory")

    monkeypatch.setattr(twin.module("backend"), "update_averages", fail)
    with pytest.raises(RuntimeError, match="no memory"):
        update(backend, AVERAGED, 1)
    assert backend.state()["optim/updates"] == 2


def test_a_state_with_averages_continues_bit_for_bit(twin):
    backend = twin.backend(AVERAGED)
    for number in range(3):
        update(backend, AVERAGED, number)
    state = backend.state()
    other = load_backend(twin.name, AVERAGED.config())
    other.load_state(state)
    assert same(other.state(), state)
    for number in (3, 4):
        assert same(update(backend, AVERAGED, number), update(other, AVERAGED, number))
    assert same(other.state(), backend.state())
    with pytest.raises(UserError, match="expected param, momentum, optim, found .*ema"):
        twin.backend(Case("plain", optim=SGD)).load_state(state)


def test_new_parameters_restart_the_averages(twin):
    backend = twin.backend(AVERAGED)
    update(backend, AVERAGED, 0)
    backend.load_params(AVERAGED.params())
    assert same(section(backend.state(), "ema/"), AVERAGED.params())


@pytest.mark.parametrize("patterns", [HEAD, MIXED], ids=["head", "mixed"])
@pytest.mark.parametrize("optim", [ADAMW, SGD | {"weight_decay": 0.5}], ids=["adamw", "sgd"])
def test_frozen_parameters_keep_their_bits(twin, patterns, optim):
    case = frozen_case(patterns, optim | {"ema": 0.5}, accumulation=2)
    backend, start = twin.backend(case), case.params()
    trained = trained_params(case.config().model, case.config().optim)
    assert 0 < len(trained) < len(start)
    images = case.batches()[0].images
    for number in range(3):
        update(backend, case, number)
        backend.fetch(backend.eval_step(images))
        backend.trace(case.batches()[0])
    state = backend.state()
    for name, value in params_of(state).items():
        still = np.array_equal(value, start[name])
        # a key's bias has a zero gradient, but for rounding
        assert still if name not in trained else not still or name.endswith("key.bias"), name
    for slot in {key.partition("/")[0] for key in state} - {"param", "optim"}:
        assert list(section(state, f"{slot}/")) == trained
    other = load_backend(twin.name, case.config())
    other.load_state(state)
    assert same(update(other, case, 3), update(backend, case, 3))
    assert same(other.state(), backend.state())


@pytest.mark.parametrize("patterns", [HEAD, MIXED], ids=["head", "mixed"])
def test_gradients_and_their_norm_are_those_of_the_trained_parameters(twin, patterns):
    case = frozen_case(patterns)
    free = twin.backend(Case("free", optim=ADAMW)).trace(case.batches()[0])
    backend = twin.backend(case)
    trace = backend.trace(case.batches()[0])
    trained = trained_params(case.config().model, case.config().optim)
    found = section(trace, "grad/")
    assert list(found) == trained
    for name, value in {k: v for k, v in trace.items() if k.startswith(("d/", "grad/"))}.items():
        if "key.bias" not in name:  # its gradient is noise
            assert relative(value, free[name]) < 1e-6, name
    norm = np.sqrt(sum((value.astype(np.float64) ** 2).sum() for value in found.values()))
    assert trace["grad_norm"] == pytest.approx(norm, rel=1e-6)
    assert update(backend, case, 0)["grad_norm"] == pytest.approx(norm, rel=1e-6)
    assert trace["clipped_norm"] == pytest.approx(min(norm, 1.0), rel=1e-5)


def test_frozen_parameters_have_no_gradient_in_the_framework(twin):
    """Nothing that a run does may switch their gradients on, which would cost time and memory."""
    case = frozen_case(MIXED)
    backend = twin.backend(case)
    trained = trained_params(case.config().model, case.config().optim)

    def learns(param):
        return param.requires_grad if twin.name == "torch" else not param.is_stop_grad()

    def check(moment):
        for name, param in backend.params.items():
            assert learns(param) == (name in trained), (moment, name)

    check("at the start")
    update(backend, case, 0)
    check("after an update")
    backend.trace(case.batches()[0])
    check("after a trace")
    state = backend.state()
    backend.fetch(backend.eval_step(case.batches()[0].images))
    update(backend, case, 1)
    check("after an evaluation and an update")
    backend.load_state(state)
    update(backend, case, 1)
    check("after a state was loaded")
    backend.load_params(case.params())
    update(backend, case, 0)
    check("after parameters were loaded")


def test_a_state_with_other_frozen_parameters_is_refused_whole(twin):
    state = twin.backend(frozen_case(HEAD)).state()
    backend = twin.backend(frozen_case(MIXED))
    before = backend.state()
    with pytest.raises(UserError, match=r"exp_avg: .* missing; .*optim.frozen.*model.pretrained"):
        backend.load_state(state)
    assert same(backend.state(), before)
    with pytest.raises(UserError, match=r"exp_avg: .* unexpected; .*optim.frozen"):
        twin.backend(frozen_case(HEAD)).load_state(before)


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["blokcs.*"], r"optim.frozen.0 'blokcs.\*': it matches no parameter; the nearest is bl"),
        (["*"], "optim.frozen matches all"),
        (["head.*", "[!h]*"], "optim.frozen matches all"),
    ],
)
def test_patterns_that_freeze_nothing_or_everything(twin, patterns, message):
    with pytest.raises(UserError, match=message):
        load_backend(twin.name, frozen_case(patterns).config())


@pytest.mark.parametrize(
    "patterns",
    [["*.attn.*", "pos_embed"], HEAD, ["[cp]*", "blocks.0.*"]],
    ids=["parts of blocks", "all blocks", "the first block"],
)
def test_gradient_checkpointing_of_a_partly_frozen_model(twin, patterns):
    """The recomputed blocks give the same losses and parameters as without."""
    case = frozen_case(patterns)
    config = case.config()
    run = config.run.model_copy(update={"grad_checkpointing": True})
    saving = load_backend(twin.name, config.model_copy(update={"run": run}))
    saving.load_params(case.params())
    plain = twin.backend(case)
    for number in range(2):
        reports = update(saving, case, number), update(plain, case, number)
        assert relative(reports[0]["loss"], reports[1]["loss"]) < 1e-6
    for name, value in params_of(plain.state()).items():
        assert relative(params_of(saving.state())[name], value) < 1e-5, name
