"""The contract of `transfg_core.backend.Backend`, tested for each declared backend.

Bit-exact where the same program runs twice or nothing is computed. Elsewhere relative L2 1e-6, a
few roundings of float32 (6e-8).
"""

from collections.abc import Iterator

import numpy as np
import pytest
from reference import contrastive, cross_entropy, relative

from parity.cases.case import SGD, Case
from transfg_core.backend import Arrays, Backend, Batch, load_backend
from transfg_core.config.sections import NORMALISATION
from transfg_core.data.transforms import normalise
from transfg_core.errors import UserError
from transfg_core.models.layout import param_shapes
from transfg_core.seeds import step_seed
from transfg_core.train import split_batch

PLAIN = Case("plain", model={"placement": "none"}, loss={"contrastive": False})
PARTS = Case("parts")
DROPOUT = Case("dropout", model={"dropout": 0.1})
ADAM = SGD | {"name": "adam", "lr": 1e-3}
CASES = pytest.mark.parametrize("case", [PARTS, PLAIN], ids=lambda case: case.name)


def equal(left: Arrays, right: Arrays) -> bool:
    """The same names in the same order, and the same bits."""
    return list(left) == list(right) and all(np.array_equal(left[n], right[n]) for n in left)


def section(state: Arrays, name: str) -> Arrays:
    """The arrays `name/...` of a state, without the prefix."""
    return {key[len(name) + 1 :]: v for key, v in state.items() if key.startswith(f"{name}/")}


def steps(backend: Backend, batches: list[Batch], lr: float = 0.01) -> list[Arrays]:
    """The reports of one update per batch."""
    return [backend.fetch(backend.train_step([batch], lr)) for batch in batches]


@CASES
def test_shapes_are_those_of_the_core(twin, case):
    config = case.config()
    shapes = twin.backend(case).param_shapes()
    expected = param_shapes(config.model, config.data.crop)
    assert shapes == expected


@CASES
def test_params_come_back_bit_for_bit(twin, case):
    params = case.params()
    state = twin.backend(case).state()
    returned = section(state, "param")
    assert returned.keys() == params.keys()
    assert all(np.array_equal(returned[name], params[name]) for name in params)
    assert all(value.dtype == np.float32 for value in returned.values())
    assert state["optim/updates"] == 0
    assert not any(value.any() for value in section(state, "momentum").values())


@pytest.mark.parametrize("optim", [SGD, ADAM, ADAM | {"name": "adamw"}], ids=lambda o: o["name"])
def test_state_comes_back_bit_for_bit(twin, optim):
    case = Case("state", optim=optim)
    backend = twin.backend(case)
    steps(backend, case.batches()[:2])
    state = backend.state()
    assert state["optim/updates"] == 2
    slots = {key.partition("/")[0] for key in state} - {"param", "optim"}
    assert slots == ({"momentum"} if optim is SGD else {"exp_avg", "exp_avg_sq"})
    other = load_backend(twin.name, case.config())
    other.load_state(state)
    assert equal(other.state(), state)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("missing", lambda a: a.pop("head.bias"), "head.bias: missing"),
        ("unknown", lambda a: a.update(more=np.zeros(3, np.float32)), "more: unexpected"),
        ("shape", lambda a: a.update({"head.bias": np.zeros(8)}), "is model.classes right"),
        ("nan", lambda a: a.update({"head.bias": np.full(7, np.nan)}), "NaN"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_params_are_refused(twin, name, change, message):
    backend, params = load_backend(twin.name, PARTS.config()), PARTS.params()
    change(params)
    with pytest.raises(UserError, match=message):
        backend.load_params(params)


def test_state_of_another_optimiser_is_refused(twin):
    state = twin.backend(PARTS).state()
    other = load_backend(twin.name, Case("adam", optim=ADAM).config())
    with pytest.raises(UserError, match="exp_avg"):
        other.load_state(state)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: s.pop("momentum/head.bias"), "head.bias: missing"),
        (lambda s: s.pop("optim/updates"), "expected param, momentum, optim"),
        (lambda s: s.update({"optim/bogus": np.array(1)}), "expected optim/updates"),
        (lambda s: s.update({"optim/updates": np.array(-1)}), "whole number"),
        (lambda s: s.update({"optim/updates": np.array(1.5)}), "whole number"),
        (lambda s: s.update({"exp_avg/head.bias": s["param/head.bias"]}), "found param"),
        (lambda s: s.update({"param/head.bias": np.zeros(9, np.float32)}), "head.bias"),
    ],
)
def test_broken_state_is_refused_whole(twin, spoil, message):
    backend = twin.backend(PARTS)
    before = backend.state()
    other = {name: value + 1 for name, value in before.items()}
    spoil(other)
    with pytest.raises(UserError, match=message):
        backend.load_state(other)
    assert equal(backend.state(), before)


def test_dropout_masks_of_successive_updates_are_unrelated(twin):
    """Each of 4096 elements is dropped in about 20 of 200 updates, with a binomial spread."""
    model = twin.backend(PARTS).model
    dropout = type(model.dropout)(0.1)
    dropout.train()
    set_seed = getattr(twin.framework, {"torch": "manual_seed", "jittor": "set_seed"}[twin.name])
    dropped = np.zeros(4096)
    for update in range(1, 201):
        set_seed(step_seed(42, update))
        dropped += twin.run(dropout, np.ones(4096, np.float32))[0] == 0
    assert 0 < dropped.min() and dropped.max() < 50  # beyond these: once in a million runs
    assert 0.85 < dropped.var() / (200 * 0.1 * 0.9) < 1.15


@pytest.mark.parametrize("name", NORMALISATION)
def test_uint8_images_are_normalised_on_the_device_to_the_same_bits(twin, name):
    """Every value in every channel; a product with the reciprocal differs in some of them."""
    config = PARTS.config()
    data = config.data.model_copy(update={"normalise": name})
    backend = load_backend(twin.name, config.model_copy(update={"data": data}))
    rng = np.random.default_rng(0)
    values = rng.permuted(np.arange(3 * 44 * 32) % 256).astype(np.uint8)
    pixels = np.stack([values, rng.permutation(values)]).reshape(2, 44, 32, 3)
    assert all(len(np.unique(pixels[..., channel])) == 256 for channel in range(3))
    found = backend.fetch({"images": backend.to_images(pixels)})["images"]
    expected = normalise(pixels, data)
    assert found.dtype == np.float32 and np.array_equal(found, expected)
    labels = PARTS.batches()[0].labels[:2]
    pair = [Batch(images, labels) for images in (pixels, normalise(pixels, data))]
    assert equal(*(backend.trace(batch) for batch in pair))


def training_starts(twin, case: Case) -> Iterator[tuple[str, Backend]]:
    """A backend in each state from which training may start, always with the same parameters."""
    backend = twin.backend(case)
    yield "after load_params", backend
    backend.fetch(backend.eval_step(case.batches()[0].images))
    yield "after eval_step", backend
    backend.trace(case.batches()[1])
    yield "after trace", backend
    other = load_backend(twin.name, case.config())
    other.load_state(backend.state())
    yield "after load_state", other


@CASES
def test_every_parameter_has_a_gradient_at_every_moment(twin, case):
    """Frameworks freeze parameters silently (assigned under no_grad, or in evaluation mode).

    A key bias has only noise for a gradient, since softmax is invariant to shifts. At least one
    block's key bias must have a gradient that is not zero everywhere.
    """
    batch = case.batches()[0]
    traces = {moment: b.trace(batch) for moment, b in training_starts(twin, case)}
    first = traces["after load_params"]
    for moment, trace in traces.items():
        grads = section(trace, "grad")
        frozen = [n for n, g in grads.items() if not g.any() and "key.bias" not in n]
        assert not frozen, moment
        assert any(g.any() for n, g in grads.items() if "key.bias" in n), moment
        assert equal(trace, first), moment


@CASES
@pytest.mark.parametrize("moment", ["after load_params", "after eval_step", "after load_state"])
def test_every_parameter_moves(twin, case, moment):
    """With weight decay: it moves also the key biases, whose gradient is noise."""
    decayed = Case(case.name, case.model, case.loss, SGD | {"weight_decay": 0.1})
    backend = dict(training_starts(twin, decayed))[moment]
    before = section(backend.state(), "param")
    steps(backend, decayed.batches()[:1])
    state = backend.state()
    after, momentum = section(state, "param"), section(state, "momentum")
    assert not [name for name in before if np.array_equal(before[name], after[name])]
    assert not [name for name in before if not momentum[name].any()]


@CASES
def test_evaluation_changes_nothing_and_repeats(twin, case):
    backend, images = twin.backend(case), case.batches()[0].images
    steps(backend, case.batches()[:1])
    before = backend.state()
    results = [backend.fetch(backend.eval_step(images)) for _ in range(2)]
    assert equal(*results)
    assert equal(backend.state(), before)
    assert results[0]["logits"].shape == (6, 7) and results[0]["logits"].dtype == np.float32
    assert ("part_index" in results[0]) == (case is PARTS)
    if case is PARTS:
        index = results[0]["part_index"]
        assert index.shape == (6, 3) and index.dtype == np.int64
        assert index.min() >= 1 and index.max() <= 20


def test_trace_changes_nothing(twin):
    backend = twin.backend(PARTS)
    before = backend.state()
    backend.trace(PARTS.batches()[0])
    assert equal(backend.state(), before)


def test_reports_are_float32_scalars(twin):
    report = steps(twin.backend(PARTS), PARTS.batches()[:1])[0]
    assert set(report) == {"loss", "cross_entropy", "contrastive", "accuracy", "grad_norm"}
    assert all(value.shape == () and value.dtype == np.float32 for value in report.values())
    assert report["loss"] == pytest.approx(report["cross_entropy"] + report["contrastive"])


def test_dropout_is_on_only_in_training(twin):
    batch = PARTS.batches()[0]
    without, with_dropout = twin.backend(PARTS), twin.backend(DROPOUT)
    for _ in range(2):  # before training, and after it has been on
        assert equal(with_dropout.trace(batch), without.trace(batch))
        logits = [b.fetch(b.eval_step(batch.images)) for b in (with_dropout, without)]
        assert equal(*logits)
        losses = [steps(b, [batch], lr=0.0)[0]["loss"] for b in (with_dropout, without)]
        assert losses[0] != losses[1]


def test_dropout_is_a_function_of_seed_and_update(twin):
    batch = DROPOUT.batches()[0]
    first, second = twin.backend(DROPOUT), twin.backend(DROPOUT)
    losses = [float(report["loss"]) for report in steps(first, [batch] * 3, lr=0.0)]
    assert len(set(losses)) == 3
    second.fetch(second.eval_step(batch.images))  # draws nothing
    handles = [second.train_step([batch], 0.0) for _ in range(3)]  # issued without waiting
    assert [float(second.fetch(handle)["loss"]) for handle in reversed(handles)] == losses[::-1]
    seeded = load_backend(twin.name, Case("seeded", DROPOUT.model, seed=1).config())
    seeded.load_params(DROPOUT.params())
    assert float(steps(seeded, [batch], lr=0.0)[0]["loss"]) not in losses


@pytest.mark.parametrize("optim", [SGD, ADAM], ids=lambda optim: optim["name"])
def test_resumed_run_equals_the_uninterrupted_run(twin, optim):
    case = Case("resumed", model={"dropout": 0.1}, optim=optim)
    batches = case.batches()[:4]
    whole = twin.backend(case)
    reports = steps(whole, batches)
    half = twin.backend(case)
    steps(half, batches[:2])
    resumed = load_backend(twin.name, case.config())
    resumed.load_state(half.state())
    assert all(map(equal, steps(resumed, batches[2:]), reports[2:]))
    assert equal(resumed.state(), whole.state())


@pytest.mark.parametrize("optim", [SGD, ADAM], ids=lambda o: o["name"])
def test_an_update_that_fails_before_its_step_changes_no_state(twin, optim):
    """So a run can save the state after the last whole update, whatever ends it."""
    case = Case("failing", optim=optim)
    backend, other = twin.backend(case), load_backend(twin.name, case.config())
    first, second = case.batches()[:2]
    steps(backend, [first])
    before = backend.state()
    with pytest.raises(AttributeError):
        backend.train_step([second, None], 0.01)  # fails after the first gradients
    assert equal(backend.state(), before)
    other.load_state(before)
    assert equal(steps(backend, [second])[0], steps(other, [second])[0])
    assert equal(backend.state(), other.state())


def test_accumulated_cross_entropy_equals_the_whole_batch(twin):
    """Two micro-batches of three make the update of one batch of six."""
    case = Case("accumulated", loss={"contrastive": False})
    batch = case.batches()[0]
    whole, parts = twin.backend(case), twin.backend(case)
    left = whole.fetch(whole.train_step([batch], 0.01))
    right = parts.fetch(parts.train_step(split_batch(batch, 2), 0.01))
    for name in left:
        assert right[name] == pytest.approx(left[name], rel=2e-6), name
    momentum = [section(b.state(), "momentum") for b in (parts, whole)]
    for name in case.params():
        if "key.bias" not in name:  # noise
            assert relative(momentum[0][name], momentum[1][name]) < 5e-6, name


def test_an_update_can_be_given_its_parts(twin):
    """Its own choice of parts changes no bit; it uses another choice, per micro-batch."""
    batch = PARTS.batches()[0]
    micro = split_batch(batch, 2)
    own = twin.backend(PARTS)
    chosen = own.fetch(own.eval_step(batch.images))["part_index"]
    other = np.concatenate([chosen[:3], chosen[3:][::-1]])  # differs in the second micro-batch
    assert not np.array_equal(chosen, other)
    reports, states = [], []
    for parts in (None, chosen, other):
        backend = twin.backend(PARTS)
        reports.append(backend.fetch(backend.train_step(micro, 0.01, parts)))
        states.append(backend.state())
    assert equal(reports[0], reports[1]) and equal(states[0], states[1])
    halves = zip(micro, np.split(other, 2), strict=True)
    traces = [twin.backend(PARTS).trace(half, {"part_index": index}) for half, index in halves]
    mean = np.mean([trace["cross_entropy"] for trace in traces])
    assert reports[2]["cross_entropy"] == pytest.approx(mean, rel=1e-6)
    assert abs(mean - reports[0]["cross_entropy"]) > 1e-4  # else the test would show nothing


def test_accumulated_contrastive_loss_is_the_mean_of_the_micro_batches(twin):
    """It compares images within a micro-batch: six images in two have 2 x 9 pairs, not 36."""
    case = Case("accumulated", optim=SGD | {"clip": None})
    batch = case.batches()[0]
    halves = split_batch(batch, 2)
    backend = twin.backend(case)
    report = backend.fetch(backend.train_step(halves, 0.01))
    traces = [twin.backend(case).trace(half) for half in halves]
    mean = np.mean([trace["contrastive"] for trace in traces])
    assert report["contrastive"] == pytest.approx(mean, rel=1e-6)
    whole = twin.backend(case).trace(batch)["contrastive"]
    assert abs(mean - whole) > 1e-3  # else the test would show nothing
    momentum = section(backend.state(), "momentum")
    for name in case.params():
        if "key.bias" not in name:
            grads = [trace[f"grad/{name}"].astype(np.float64) for trace in traces]
            assert relative(momentum[name], np.mean(grads, axis=0)) < 5e-6, name


def test_losses_compare_with_the_targets_and_accuracy_with_the_labels(twin):
    """In every micro-batch; one-hot targets are the labels."""
    case = Case("mixed", loss={"label_smoothing": 0.1}, mixed=True)
    batch, (backend, other) = case.batches()[0], (twin.backend(case) for _ in range(2))
    halves = split_batch(batch, 2)
    traces = [backend.trace(half) for half in halves]
    for half, trace in zip(halves, traces, strict=True):
        ce = cross_entropy(trace["logits"], half.targets, 0.1)
        con = contrastive(trace["features"], half.targets, case.config().loss.margin)
        assert trace["cross_entropy"] == pytest.approx(ce, rel=1e-6)
        assert trace["contrastive"] == pytest.approx(con, rel=1e-6)
    guess = np.concatenate([trace["logits"].argmax(1) for trace in traces])
    labels = np.where([True, False] * 3, guess, (guess + 1) % 7)  # half of them are right
    mixed = batch._replace(labels=labels)
    report = backend.fetch(backend.train_step(split_batch(mixed, 2), 0.01))
    assert report["accuracy"] == 0.5
    for name in ("loss", "cross_entropy", "contrastive"):
        mean = np.mean([trace[name] for trace in traces])
        assert report[name] == pytest.approx(mean, rel=1e-6), name
        whole = backend.fetch(other.train_step([mixed._replace(targets=None)], 0.0))
        assert abs(whole[name] - mean) > 1e-3, name  # else the test would show nothing
    one_hot = mixed._replace(targets=np.eye(7, dtype=np.float32)[labels])
    reports = [
        other.fetch(other.train_step([b], 0.0)) for b in (one_hot, mixed._replace(targets=None))
    ]
    assert reports[0]["loss"] == pytest.approx(reports[1]["loss"], rel=1e-6)


@pytest.mark.parametrize("optim", [SGD, ADAM | {"name": "adamw"}], ids=lambda o: o["name"])
def test_rate_zero_does_not_change_the_parameters(twin, optim):
    case = Case("still", optim=optim | {"weight_decay": 0.1})
    backend = twin.backend(case)
    steps(backend, case.batches()[:2], lr=0.0)
    state = backend.state()
    assert equal(section(state, "param"), case.params())
    assert state["optim/updates"] == 2


def test_device_is_described(twin):
    info = twin.backend(PARTS).device_info()
    assert info["backend"] == twin.name
    assert info["version"] and info["device"] and info["kind"] in ("cpu", "cuda")
    assert info["threads"] >= 1
    assert info["peak_memory_bytes"] > 2**20


@pytest.mark.gpu
def test_model_is_on_the_device(twin):
    backend = twin.backend(PARTS)
    steps(backend, PARTS.batches()[:1])
    assert backend.device_info()["kind"] == "cuda"
