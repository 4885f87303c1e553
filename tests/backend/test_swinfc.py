"""SwinFC in both twins, module by module, against NumPy written from the paper's equations."""

import numpy as np
import pytest
import swinfc_reference as numpy_swinfc
from reference import contrastive, cross_entropy, relative

from parity.cases.case import BY_NAME, Case
from transfg_core.backend import load_backend
from transfg_core.models.multi_scale import BRANCHES
from transfg_core.models.swin import windows_of

BOUND = 3e-6
SMALL = {"name": "swinfc", "depths": [1, 1, 1, 2]}
CASES = [BY_NAME["swinfc"], BY_NAME["swinfc-options"]]
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@pytest.fixture(scope="module")
def traces(twin):
    """The taps of both cases, in float64 from here on."""
    found = {}
    for case in CASES:
        trace = twin.backend(case).trace(case.batches()[0], fine=True, training=case.training)
        wide = {name: value.astype("f8") for name, value in trace.items() if "/" not in name}
        found[case.name] = wide | {"part_index": trace["part_index"]}
    return found


def wide_params(case):
    return {name: value.astype("f8") for name, value in case.params().items()}


def grid_of(case, stage, tokens):
    """(B, T, F) -> (B, F, H, W)."""
    windows = windows_of(case.config().model, case.crop, stage, 0)
    return tokens.swapaxes(1, 2).reshape(len(tokens), -1, windows.rows, windows.columns)


@each_case
def test_eaca_is_the_sum_of_ea_and_ca(traces, case):
    taps, params = traces[case.name], wide_params(case)
    depths = case.config().model.depths
    for i, stage in enumerate(BRANCHES):
        tokens = taps[f"stage{stage}_block{depths[stage] - 1:02d}"]
        x = grid_of(case, stage, tokens)
        assert (taps[f"map{stage + 1}"] == x).all()
        first = numpy_swinfc.ea(x, params, f"eaca.{i}.ea", case.training)
        second = numpy_swinfc.ca(x, params, f"eaca.{i}.ca")
        name = f"eaca{stage + 1}"
        assert relative(taps[f"{name}.ea.out"].reshape(x.shape), first) < BOUND
        assert relative(taps[f"{name}.ca.out"], second) < BOUND
        assert relative(taps[name], first + second) < BOUND


@each_case
def test_alignment(traces, case):
    taps, params = traces[case.name], wide_params(case)
    for i, stage in enumerate(BRANCHES):
        x = taps[f"eaca{stage + 1}"]
        expected = numpy_swinfc.align(x, params, f"align.{i}", case.training)
        assert relative(taps[f"align{stage + 1}"], expected) < BOUND


@each_case
def test_fusion_adds_what_each_map_lacks(traces, case):
    """The program never forms the maps; here they are formed, then averaged."""
    taps = traces[case.name]
    maps = [taps[f"align{stage + 1}"] for stage in BRANCHES]
    expected = numpy_swinfc.ffm(maps, case.config().model.similarity == "cosine")
    for stage, value in zip(BRANCHES, expected, strict=True):
        assert relative(taps[f"pooled{stage + 1}"], value) < BOUND


@each_case
def test_stage_heads(traces, case):
    taps, params = traces[case.name], wide_params(case)
    for i, stage in enumerate(BRANCHES):
        x, name = taps[f"pooled{stage + 1}"], f"stage_heads.{i}"
        if f"{name}.weight" in params:
            expected = x @ params[f"{name}.weight"].T + params[f"{name}.bias"]
        else:
            expected = numpy_swinfc.mlp_head(x, params, name, case.training)
        assert relative(taps[f"stage_logits{stage + 1}"], expected) < BOUND


@each_case
def test_tokens_are_chosen_by_the_attention_they_get(traces, case):
    """Scores of every token, one window or several; first maximum; mean of the chosen tokens."""
    taps, params, model = traces[case.name], wide_params(case), case.config().model
    scores = []
    for block in range(model.depths[3]):
        windows, name = windows_of(model, case.crop, 3, block), f"stage3_block{block:02d}.attn"
        table = params[f"stages.3.blocks.{block}.attn.bias_table"]
        keep = np.zeros(windows.padded, bool)
        keep[: windows.rows, : windows.columns] = True
        pairs = zip(taps[f"{name}.query"], taps[f"{name}.key"], strict=True)
        found = [numpy_swinfc.fsm_scores(*qk, table, windows, model.heads[3]) for qk in pairs]
        scores.append(np.stack(found)[:, :, keep.reshape(-1)])
    expected = np.concatenate(scores, axis=1)
    assert relative(taps["part_scores"], expected) < BOUND
    assert (taps["part_index"] == taps["part_scores"].argmax(-1) + 1).all()
    tokens = np.stack([x[i - 1] for x, i in zip(taps["norm"], taps["part_index"], strict=True)])
    assert (taps["part_tokens"] == tokens).all()
    assert relative(taps["part_features"], tokens.mean(1)) < BOUND
    assert relative(taps["features"], taps["norm"].mean(1)) < BOUND


def test_several_windows_compete(traces):
    """The last stage of the second case has more than one window, and both blocks choose."""
    case = BY_NAME["swinfc-options"]
    assert windows_of(case.config().model, case.crop, 3, 1).count > 1
    chosen = traces[case.name]["part_index"]
    assert chosen.shape == (6, 2 * case.config().model.heads[3]) and len(np.unique(chosen)) > 2


@each_case
def test_total_loss(traces, case):
    """Equation 16: L_swin + sum of b L_stage + L_con, the last of the chosen tokens' mean."""
    taps, config, batch = traces[case.name], case.config(), case.batches()[0]
    targets = batch.labels if batch.targets is None else batch.targets
    smoothing = config.loss.label_smoothing
    total = cross_entropy(taps["logits"], targets, smoothing)
    for number, weight in zip((2, 3, 4), config.loss.stages, strict=True):
        loss = cross_entropy(taps[f"stage_logits{number}"], targets, smoothing)
        assert taps[f"stage_loss{number}"] == pytest.approx(loss, rel=1e-6)
        total += weight * loss
    pairs = contrastive(taps["part_features"], targets, config.loss.margin)
    assert taps["contrastive"] == pytest.approx(pairs, rel=1e-5, abs=1e-6)
    assert taps["loss"] == pytest.approx(total + pairs, rel=1e-6)


def test_prediction_is_the_sum_where_asked(twin):
    """The logits of evaluations and the accuracy in training; the loss is of each by itself."""
    case, batch = BY_NAME["swinfc-options"], BY_NAME["swinfc-options"].batches()[0]
    backend = twin.backend(case)
    taps = backend.trace(batch)
    total = taps["logits"] + sum(taps[f"stage_logits{number}"] for number in (2, 3, 4))
    found = backend.fetch(backend.eval_step(batch.images))["logits"]
    assert relative(found, total) < BOUND
    assert relative(found, taps["logits"]) > 0.01


@pytest.mark.parametrize(
    "off", [{"ea": False}, {"ca": False}, {"ffm": False}, {"fsm": False}], ids=str
)
def test_each_module_can_be_switched_off(twin, off):
    """Its parameters and taps are gone, and the backbone's answer stays as it is."""
    whole, case = (
        Case("whole", model=SMALL, crop=(76, 44)),
        Case("part", SMALL | off, crop=(76, 44)),
    )
    params = case.params()
    assert params.keys() <= whole.params().keys()
    backend, batch = load_backend(twin.name, case.config()), case.batches()[0]
    backend.load_params(params)
    taps = backend.trace(batch)
    (module,) = off
    gone = {"ea": "eaca2.ea.out", "ca": "eaca2.ca.out", "ffm": "align2", "fsm": "part_features"}
    assert gone[module] not in taps
    assert ("part_index" in backend.eval_step(batch.images)) == (module != "fsm")
    loss = backend.fetch(backend.train_step([batch], 0.01))
    assert np.isfinite(loss["loss"]) and loss["stage_loss4"] > 0


def test_without_any_module_it_is_a_swin(twin):
    """The same parameters, and the same logits to the bit."""
    off = dict.fromkeys(("ea", "ca", "ffm", "fsm"), False)
    case = Case("none", SMALL | off, crop=(76, 44))
    plain = Case("swin", SMALL | {"name": "swin"}, crop=(76, 44))
    assert case.params().keys() == plain.params().keys()
    logits = []
    for one in (case, plain):
        backend = twin.backend(one)
        logits.append(backend.fetch(backend.eval_step(one.batches()[0].images))["logits"])
    assert np.array_equal(*logits)


def updates(backend, case, rate, count=2):
    """The reports of some updates, and the state after them."""
    reports = [backend.fetch(backend.train_step([batch], rate)) for batch in case.batches()[:count]]
    return reports, backend.state()


def loaded(twin, case, **run):
    """A backend with other settings of the section `run`."""
    config = case.config()
    config = config.model_copy(update={"run": config.run.model_copy(update=run)})
    backend = load_backend(twin.name, config)
    backend.load_params(case.params())
    return backend


def test_recomputed_modules_change_nothing(twin):
    """Losses, gradients and running statistics of two updates, block by block and map by map.

    At rate 0, since Jittor rounds otherwise in the second pass, and a step would amplify that.
    """
    case = Case("small", SMALL | {"window": 2}, crop=(76, 64))
    found = [updates(loaded(twin, case, grad_checkpointing=on), case, 0.0) for on in (False, True)]
    (plain, state), (recomputed, again) = found
    for left, right in zip(plain, recomputed, strict=True):
        assert left.keys() == right.keys()
        for name, value in left.items():
            assert right[name] == pytest.approx(float(value), rel=1e-5), name
    zero = ("key.bias", "ea.norm.bias")  # their gradients are rounding alone
    for name, value in state.items():
        if not name.endswith(zero) and value.any():
            assert relative(again[name], value) < 1e-5, name


def test_bfloat16_is_near_and_never_equal(twin):
    """The fusion multiplies in float32: products of hundreds would lose all digits."""
    case = Case("small", SMALL, crop=(76, 64))
    batch = case.batches()[0]
    backend = load_backend(twin.name, case.config("bfloat16"))
    backend.load_params(case.params())
    trace, exact = backend.trace(batch), twin.backend(case).trace(batch)
    for name in ("pooled2", "stage_logits2", "stage_logits4", "part_features", "logits"):
        assert 1e-5 < relative(trace[name], exact[name]) < 0.1, name
    report = backend.fetch(backend.train_step([batch], 0.01))
    assert all(np.isfinite(value) for value in report.values())


def test_evaluation_computes_no_branch_that_nobody_reads(twin, monkeypatch):
    """With `prediction: sum` the answer needs them; then, and in updates, they are computed."""
    calls = []
    model = twin.module("models.swinfc").SwinFC
    classify = model.classify_stages
    monkeypatch.setattr(
        model, "classify_stages", lambda self, *more: calls.append(1) or classify(self, *more)
    )
    for case, evaluated in ((BY_NAME["swinfc"], 0), (BY_NAME["swinfc-options"], 1)):
        assert case.config().model.prediction == ("sum" if evaluated else "backbone")
        backend, batch = twin.backend(case), case.batches()[0]
        calls.clear()
        backend.fetch(backend.eval_step(batch.images))
        assert len(calls) == evaluated
        backend.fetch(backend.train_step([batch], 0.01))
        assert len(calls) == evaluated + 1


def test_the_sum_of_logits_is_in_float32(twin):
    """Also in bfloat16: the answer is the sum of logits that are recorded rounded."""
    case = BY_NAME["swinfc-options"]
    backend = load_backend(twin.name, case.config("bfloat16"))
    backend.load_params(case.params())
    images = case.batches()[0].images
    with backend.evaluating():
        output = backend.apply(backend.to_images(images))
    names = {f"logits{i}": x for i, x in enumerate((output.logits, *output.stage_logits))}
    parts = backend.fetch(names)
    answer = backend.fetch({"answer": output.answer})["answer"]
    assert np.allclose(answer, sum(parts.values()), rtol=1e-6, atol=1e-6)
