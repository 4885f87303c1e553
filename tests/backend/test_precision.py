"""`run.precision`: float64 everywhere, or bfloat16 inputs and outputs of linear layers.

Jittor has one precision per process, so float64 runs in a separate process for both twins.
"""

import json

import numpy as np
import pytest
from reference import relative
from running import ROOT, python

from parity.cases.case import Case
from transfg_core.backend import Batch, load_backend
from transfg_core.errors import UserError

CASE = Case("precise", model={"depth": 2, "placement": "none"}, loss={"contrastive": False})
SCORE_NOISE = 2e-3  # relative, for scores from products in bfloat16, eight binary digits
BOUND = 1e-12  # relative error of float64 against NumPy

DOUBLE = """
import json, sys
import numpy as np
import reference
from parity.cases.case import SGD, Case
from transfg_core.backend import load_backend
from transfg_core.errors import UserError
from transfg_core.params.groups import param_groups

name = sys.argv[1]
SMOOTH = {"label_smoothing": 0.1}
cases = [
    Case("parts", {"depth": 3, "stride": 6}, SMOOTH, SGD | {"weight_decay": 0.01}),
    Case("plain", {"depth": 2, "placement": "none"}, SMOOTH, SGD | {"name": "adam"}),
]
RATES = (0.0137, 0.0071, 0.0033)
worst, kinds, said = {}, set(), ""
for case in cases:
    backend = load_backend(name, case.config("float64"))
    params, batch = case.params(), case.batches()[0]
    backend.load_params(params)
    state = backend.state()
    assert all(np.array_equal(state[f"param/{n}"], v) for n, v in params.items())
    trace = backend.trace(batch, fine=True)
    expected = reference.forward(params, batch.images, case.config().model)
    for tap, value in expected.taps.items():
        if tap == "part_index":
            assert np.array_equal(trace[tap], value)
        else:
            worst[f"{case.name}/{tap}"] = reference.relative(trace[tap], value)
    loss = reference.cross_entropy(expected.logits, batch.labels, 0.1)
    loss += reference.contrastive(expected.features, batch.labels, 0.4)
    worst[f"{case.name}/loss"] = abs(float(trace["loss"]) - loss) / loss
    config = case.config()
    groups = param_groups(config.model, config.optim)
    optimizer = reference.Optimizer(params, groups, config.optim)
    for lr in RATES:
        now = backend.trace(batch)
        norm = optimizer.step({n: now[f"grad/{n}"] for n in params}, lr)
        report = backend.fetch(backend.train_step([batch], lr))
        worst[f"{case.name}/norm at {lr}"] = abs(float(report["grad_norm"]) / norm - 1)
        worst[f"{case.name}/loss at {lr}"] = abs(float(report["loss"] / now["loss"]) - 1)
    state = backend.state()
    for n, value in optimizer.params.items():
        if not n.endswith("key.bias"):  # its gradient is noise
            worst[f"{case.name}/{n}"] = reference.relative(state[f"param/{n}"], value)
    for slot, values in optimizer.slots.items():
        for n, value in values.items():
            if not n.endswith("key.bias"):
                worst[f"{case.name}/{slot}/{n}"] = reference.relative(state[f"{slot}/{n}"], value)
    found = trace | backend.state() | report | backend.fetch(backend.eval_step(batch.images))
    found |= backend.fetch(backend.rollout(batch.images))
    kinds |= {v.dtype.str for n, v in found.items() if v.dtype.kind == "f"}
    if name == "jittor" and case.name == "parts":  # a frozen backbone once crashed it
        encode = backend.model.encode
        def cut(*inputs):
            encoded = encode(*inputs)
            return encoded._replace(layers=[x.detach() for x in encoded.layers])
        backend.model.encode = cut
        frozen = backend.trace(batch)
        assert not frozen["grad/blocks.0.mlp.fc1.weight"].any() and frozen["grad/head.weight"].any()
        backend.model.encode = encode
    other = load_backend(name, case.config("float64"))
    other.load_state(backend.state())
    loaded = other.state()
    # a checkpoint stores float32, and so does load_state
    assert all(np.array_equal(loaded[n], v.astype("f4")) for n, v in backend.state().items())
try:
    load_backend(name, cases[0].config("float32"))
except UserError as error:
    said = str(error)
print(json.dumps([worst, sorted(kinds), said]))
"""


@pytest.fixture(scope="module")
def double(twin):
    """Results of a float64 process: errors by tap, types, and the message that refused float32."""
    path = str(ROOT / "tests")
    code = f"import sys; sys.path.insert(0, {path!r})\n{DOUBLE}"
    done = python(ROOT, ["-c", code, twin.name], timeout=1200)  # Jittor may have to compile
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_float64_is_float64_everywhere(twin, double):
    worst, kinds, _ = double
    assert max(worst.values()) < BOUND, worst
    assert kinds == ["<f8"]


def test_a_process_of_jittor_has_one_precision(twin, double):
    said = double[2]
    if twin.name == "torch":
        assert said == ""
    else:
        assert "run.precision float32: this process has used Jittor in float64" in said
        assert "start another process" in said


@pytest.mark.only("jittor")
def test_float64_after_float32_is_refused(twin):
    twin.backend(CASE)
    with pytest.raises(UserError, match="has used Jittor in \w+.* start another process"):
        load_backend(twin.name, CASE.config("float64"))
    twin.backend(CASE).trace(CASE.batches()[0])  # float32 still works


def test_bfloat16_is_near_float32(twin):
    batch = CASE.batches()[0]
    exact, low = (load_backend(twin.name, CASE.config(p)) for p in ("float32", "bfloat16"))
    for backend in (exact, low):
        backend.load_params(CASE.params())
    expected, found = exact.trace(batch, fine=True), low.trace(batch, fine=True)
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name].dtype == np.float32 and found[name].shape == value.shape, name
        if not name.endswith("key.bias") and value.any():
            assert relative(found[name], value) < 5e-2, name
    assert relative(found["logits"], expected["logits"]) > 1e-4  # it is not float32
    logits = low.fetch(low.eval_step(batch.images))["logits"]
    assert logits.dtype == np.float32 and relative(logits, expected["logits"]) < 5e-2


@pytest.mark.only("torch")
@pytest.mark.parametrize("fusion", ["matmul", "mul", "add", "lastlayer"])
def test_parts_are_selected_as_in_float32(twin, fusion):
    """From queries and keys in bfloat16: the same token, unless two scores are almost equal."""
    torch, fuse = twin.framework, twin.module("models.parts").fuse_rows
    drawn = np.random.default_rng(5).standard_normal((2, 5, 8, 200, 48)).astype(np.float32)
    queries, keys = (list(torch.from_numpy(x).bfloat16()) for x in drawn)
    with torch.autocast("cpu", torch.bfloat16):
        low = fuse(queries, keys, 12, fusion)
    exact = fuse([x.double() for x in queries], [x.double() for x in keys], 12, fusion)
    assert low.dtype == torch.float32
    first, second = exact.topk(2).values.unbind(-1)
    size = first.abs() if fusion == "mul" else first
    clear = (first - second) / size > SCORE_NOISE
    assert clear.float().mean() > 0.5
    assert torch.equal(low.argmax(-1)[clear], exact.argmax(-1)[clear])


def test_bfloat16_trains_float32_parameters(twin):
    low = load_backend(twin.name, CASE.config("bfloat16"))
    low.load_params(CASE.params())
    batch = CASE.batches()[0]
    halves = [Batch(batch.images[:3], batch.labels[:3]), Batch(batch.images[3:], batch.labels[3:])]
    losses = [float(low.fetch(low.train_step(halves, 0.03))["loss"]) for _ in range(10)]
    assert losses[-1] < losses[0]
    floats = {v.dtype for v in low.state().values() if v.dtype.kind == "f"}
    assert floats == {np.dtype(np.float32)}


@pytest.mark.only("torch")
def test_float64_and_tf32_share_a_process_of_pytorch(twin, monkeypatch):
    """TF32 does not affect float64; with float32 it is refused, in either order."""
    torch, runtime = twin.framework, twin.module("runtime")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for order in (("tf32", "float32"), ("float32", "tf32")):
        monkeypatch.setattr(runtime, "USED_PRECISION", {})
        for precision in ("float64", order[0], "float64"):
            runtime.set_precision(precision)
        assert torch.backends.cuda.matmul.allow_tf32 == (order[0] == "tf32")
        with pytest.raises(UserError, match=f"run.precision {order[1]}: this process has used"):
            runtime.set_precision(order[1])
    monkeypatch.setattr(runtime, "USED_PRECISION", {})
    runtime.set_precision("float32")  # restore
