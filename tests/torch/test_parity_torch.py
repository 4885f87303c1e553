"""PyTorch's recorder: what it sees in a model, that it changes nothing, and that right code passes.

The nets are small, and hold what makes recording hard: repeated modules, functions in place, shared
weights, several outputs, dropout, kinks. Two different right programs must never be `different`.
"""

from collections import Counter, OrderedDict

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from parity import compare, read_trace  # noqa: E402
from parity.errors import ParityError  # noqa: E402
from parity.torch import record  # noqa: E402

SGD = {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-2}


class Net(nn.Module):
    """Everything that makes recording hard, in a few modules."""

    def __init__(self, fault: str = ""):
        super().__init__()
        self.fault = fault
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.mix = nn.Linear(6, 6)
        self.tied = nn.Linear(6, 6)
        self.tied.weight = self.mix.weight
        self.attend = nn.MultiheadAttention(6, 2, dropout=0.5, batch_first=True)
        self.drop = nn.Dropout(0.5)
        self.frozen = nn.Linear(6, 6)
        self.unused = nn.Parameter(torch.ones(3))
        self.table = nn.Embedding(7, 6)
        self.head = nn.Linear(6, 4)

    def forward(self, x, tokens):
        x *= 1.5  # the input, in place
        y = self.norm(self.conv(x))
        y += x.mean(1, keepdim=True)  # a residual in place
        y = self.relu(y)
        y = y + self.relu(y - 0.3)  # a repeated module
        y = self.pool(y).flatten(2).transpose(1, 2)
        y = self.mix(y) - self.tied(y.flip(-1))
        y = F.relu(y) if self.fault != "slope" else F.leaky_relu(y, 1e-2)
        y = self.attend(y, y, y)[0] + self.table(tokens)[:, None]
        with torch.no_grad():
            bias = self.frozen(y.mean(1))
        top = torch.topk(y, 3, dim=1).values.mean(1) + y.amax(1) + torch.maximum(y[:, 0], y[:, 1])
        z = self.drop(top) + F.dropout(bias, 0.2, self.training)
        if self.fault == "detached":
            z = z.detach() + 0 * z
        logits = self.head(F.hardswish(z).clamp_(-2.0, 2.0))
        return OrderedDict(logits=logits, pair=(z, z.abs()))


def drawn(model, seed=0):
    """The model with numbers that leave nothing at one or zero."""
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                noise = torch.from_numpy(rng.standard_normal(value.shape).astype("f4"))
                value.copy_(noise.abs() + 0.5 if "var" in name else 0.6 * noise + 0.1)
    return model


def inputs(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "x": rng.standard_normal((2, 3, 10, 10)).astype("f4"),
        "tokens": rng.integers(0, 7, 2),
    }


def recorded(tmp_path, baseline, candidate, arrays, **options):
    """Paths of all recordings of two models: the candidate's first, the baseline's follow them."""
    own = {"modes": ("eval", "train"), "update": SGD} | options
    b, c = {"name": "b", **own}, {"name": "c", **own}
    paths = {n: tmp_path / f"{n}.npz" for n in ("b", "c", "b64", "c64", "bu1", "bu2", "b64u1")}
    record(paths["c"], candidate, arrays, **c)
    record(paths["b"], baseline, arrays, follow=paths["c"], **b)
    record(paths["b64"], baseline, arrays, precision="float64", follow=paths["c"], **b)
    record(paths["c64"], candidate, arrays, precision="float64", **c)
    for number in (1, 2):
        options = {"variant": f"ulp:{number}", "follow": paths["c"]}
        record(paths[f"bu{number}"], baseline, arrays, **options, **b)
    options = {"precision": "float64", "variant": "ulp:1", "follow": paths["c"]}
    record(paths["b64u1"], baseline, arrays, **options, **b)
    return list(paths.values())


def verdicts(rows):
    return Counter(row.verdict for row in rows)


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    path = tmp_path_factory.mktemp("parity") / "net.npz"
    notes = record(path, drawn(Net()), inputs(), modes=("eval", "train"), update=SGD)
    assert notes == []
    return read_trace(path)


def test_taps_of_each_kind(trace):
    taps = trace.taps
    for name in (
        "parameters/norm.running_var", "forward/relu", "forward/relu#2", "forward/attend.0",
        "forward/output.logits", "forward/output.pair.1", "inputs/conv", "choices/relu#2",
        "choices/pool", "choices/model:relu", "choices/model:top-k", "choices/model:max",
        "choices/model:maximum", "choices/model:hard_swish", "choices/model:clamp",
        "choices/model:abs", "losses/loss", "backward/d/conv", "gradients/conv.weight",
        "gradients/tied.weight", "gradients/input:x", "training forward/norm",
        "training statistics/norm.running_mean", "training gradients/head.bias",
        "one update/step/conv.weight", "evaluation/random", "training/random",
    ):  # fmt: skip
        assert name in taps, name
    for name in (
        "backward/d/frozen",  # called under no_grad
        "gradients/unused",  # reached by no loss
        "gradients/input:tokens",  # whole numbers
        "forward/attend.out_proj",  # inside a leaf
    ):
        assert name not in taps, name
    assert not taps["evaluation/random"] and taps["training/random"]


def test_taps_are_what_the_modules_returned(trace):
    """In-place functions later on change no tap: each is compared with its own formula."""
    taps = {name: np.asarray(value) for name, value in trace.taps.items()}
    x = np.float32(1.5) * inputs()["x"]
    relu = np.maximum(taps["inputs/relu"], 0)
    residual = taps["forward/norm"] + x.mean(1, keepdims=True)
    np.testing.assert_allclose(taps["inputs/relu"], residual, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(taps["forward/relu"], relu)
    np.testing.assert_array_equal(taps["forward/relu#2"], np.maximum(relu - np.float32(0.3), 0))
    np.testing.assert_array_equal(taps["inputs/conv"], x)
    np.testing.assert_array_equal(taps["inputs/pool"], relu + taps["forward/relu#2"])
    np.testing.assert_array_equal(taps["choices/relu"], taps["inputs/relu"] > 0)


def test_gradients_are_those_of_plain_torch(trace, tmp_path):
    """The same loss and gradients by backward() of an untouched model."""
    model = drawn(Net()).eval()
    x = torch.from_numpy(inputs()["x"]).requires_grad_()
    hidden = []
    model.conv.register_forward_hook(lambda m, a, out: hidden.append(out) or out.clone())
    outputs = model(x.clone(), torch.from_numpy(inputs()["tokens"]))
    from parity.recording.draw import generator

    flat = [outputs["logits"], *outputs["pair"]]
    shapes = [tuple(each.shape) for each in flat]
    drawn_cotangents = [
        torch.from_numpy(generator(0, f"cotangent {n}").standard_normal(shape).astype(np.float32))
        for n, shape in enumerate(shapes)
    ]
    loss = sum((o * c).sum() for o, c in zip(flat, drawn_cotangents, strict=True)) / 2
    hidden[0].retain_grad()
    loss.backward()
    for tap, expected in (
        ("losses/loss", loss.detach()),
        ("gradients/conv.weight", model.conv.weight.grad),
        ("gradients/mix.weight", model.mix.weight.grad),
        ("gradients/input:x", x.grad),
        ("backward/d/conv", hidden[0].grad),
    ):
        np.testing.assert_allclose(trace.taps[tap], expected.numpy(), rtol=2e-5, atol=1e-6)


def test_update_is_the_optimisers_own(trace):
    """SGD's first step: -lr (gradient + decay * weight); an unused parameter is not changed."""
    taps = trace.taps
    weight = taps["parameters/conv.weight"].astype(np.float64)
    expected = -0.1 * (taps["training gradients/conv.weight"] + 1e-2 * weight)
    np.testing.assert_allclose(taps["one update/step/conv.weight"], expected, atol=1e-6)
    assert not taps["one update/step/unused"].any()


def test_facts_of_operations(trace):
    facts = trace.manifest["operations"]
    conv = facts["forward/conv"]
    assert (conv["operation"], conv["reads"]) == ("convolution", ["inputs/conv"])
    assert conv["params"] == ["conv.weight", "conv.bias"] and conv["settings"]["padding"] == [1, 1]
    assert facts["forward/norm"]["reads"] == ["forward/conv"]
    assert facts["forward/norm"]["source"].startswith("torch/nn/modules/batchnorm.py:")
    assert facts["forward/attend.0"]["operation"] == "attention"
    kink = trace.manifest["kinks"]["choices/relu"]
    assert (kink["kind"], kink["input"], kink["corners"]) == ("relu", "inputs/relu", [0.0])
    assert trace.manifest["kinks"]["choices/pool"]["input"] == "inputs/pool"


def test_recording_changes_nothing(tmp_path):
    """Weights, buffers, modes, dropout rates, random numbers and types stay as they were."""
    model = drawn(Net()).train()
    model.norm.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    for precision in ("float32", "float64"):
        options = {"modes": ("eval", "train"), "update": SGD, "precision": precision}
        record(tmp_path / "a.npz", model, inputs(), **options)
    assert torch.equal(torch.rand(2), expected) and torch.get_default_dtype() is torch.float32
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert model.training and model.drop.training and not model.norm.training
    assert model.attend.dropout == 0.5
    assert all(parameter.grad is None for parameter in model.parameters())
    plain = drawn(Net()).eval()
    x = inputs()
    args = torch.from_numpy(x["x"]), torch.from_numpy(x["tokens"])
    with torch.no_grad():
        again = plain(*args)["logits"].numpy()
    np.testing.assert_allclose(
        read_trace(tmp_path / "a.npz").taps["forward/output.logits"], again, 1e-5
    )


def test_the_same_net_is_equivalent(tmp_path):
    rows = compare(recorded(tmp_path, drawn(Net()), drawn(Net()), inputs()))
    assert not {"different", "less precise"} & set(verdicts(rows)), verdicts(rows)


@pytest.mark.parametrize("fault", ["slope", "detached"])
def test_a_fault_is_different(tmp_path, fault):
    rows = compare(recorded(tmp_path, drawn(Net()), drawn(Net(fault)), inputs()))
    stages = {row.stage for row in rows if row.verdict == "different"}
    assert ("forward" in stages) == (fault == "slope") and "gradients" in stages


class Residual(nn.Module):
    """A residual ReLU network of `depth` blocks. `order`: in which order sums are computed."""

    def __init__(self, depth: int, order: int):
        super().__init__()
        self.order = order
        self.convs = nn.ModuleList(nn.Conv2d(12, 12, 3, padding=1) for _ in range(depth))
        self.norms = nn.ModuleList(nn.BatchNorm2d(12) for _ in range(depth))
        self.pool = nn.MaxPool2d(2)

    def forward(self, x):
        for number, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            if self.order < 0:  # the input channels from the last to the first
                weight = conv.weight.flip(1)
                y = F.conv2d(x.flip(1), weight, conv.bias, padding=1)
            else:
                y = F.conv2d(x, conv.weight, conv.bias, padding=1)
            x = x + F.relu(norm(y))
            x = self.pool(x) if number == 1 else x
        return x


def shaped(model):
    """He's initial values, so that numbers keep their size over the depth."""
    torch.manual_seed(5)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
            nn.init.normal_(module.bias, std=0.1)
    return model


@pytest.mark.parametrize("depth", [4, 12])
def test_right_relu_networks_are_never_different(tmp_path, depth):
    """Thousands of ReLU inputs, some within rounding of zero, on two orders of summation."""
    rng = np.random.default_rng(depth)
    arrays = {"x": rng.standard_normal((6, 12, 16, 16)).astype("f4")}
    pair = [shaped(Residual(depth, order)) for order in (1, -1)]
    paths = recorded(tmp_path, *pair, arrays, modes=("eval", "train"), update=None)
    rows = compare(paths)
    assert not {"different", "less precise", "undecided"} & set(verdicts(rows)), verdicts(rows)


def test_choices_are_followed_near_ties_only(tmp_path):
    """A tie is followed, so gradients agree; a choice that is plainly wrong is not copied."""

    class Corner(nn.Module):
        def __init__(self, shift):
            super().__init__()
            self.lin, self.shift = nn.Linear(4, 4), shift

        def forward(self, x):
            y = self.lin(x)
            return F.relu(y + self.shift) if self.shift else F.relu(y)

    weights = torch.tensor(np.random.default_rng(0).standard_normal((4, 4)), dtype=torch.float32)
    x = np.random.default_rng(1).standard_normal((3, 4)).astype("f4")
    models = []
    for shift in (0.0, 1e-7):
        model = Corner(shift)
        with torch.no_grad():
            model.lin.weight.copy_(weights)
            model.lin.bias.zero_()
            model.lin.bias[2] = -model.lin(torch.from_numpy(x))[1, 2]  # exactly at the corner
        models.append(model)
    c, b, free = (tmp_path / f"{name}.npz" for name in "cbf")
    record(c, models[1], {"x": x})
    record(b, models[0], {"x": x}, follow=c)
    record(free, models[0], {"x": x})
    candidate, follower, alone = (read_trace(path) for path in (c, b, free))
    tap = "gradients/lin.bias"
    assert candidate.taps["choices/model:relu"][1, 2] == 1
    assert follower.taps["choices/model:relu"][1, 2] == 0  # its own choice, though it followed
    assert follower.manifest["branch"] == candidate.manifest["branch"]
    assert alone.manifest["branch"] != candidate.manifest["branch"]
    np.testing.assert_allclose(follower.taps[tap], candidate.taps[tap], rtol=1e-6)
    assert not np.allclose(alone.taps[tap], candidate.taps[tap])
    wrong = Corner(2.0)
    wrong.load_state_dict(models[0].state_dict())
    record(c, wrong, {"x": x})
    record(b, models[0], {"x": x}, follow=c)
    follower = read_trace(b)
    same = [0, 1, 3]  # unit 2 has the tie, where either choice is right
    np.testing.assert_array_equal(follower.taps[tap][same], alone.taps[tap][same])
    assert follower.manifest["branch"] != read_trace(c).manifest["branch"]


def test_choices_in_training_decide_about_training_alone(tmp_path):
    """The candidate errs in training only; its gradients of the other mode stay comparable."""

    class Net(nn.Module):
        def __init__(self, shift, order):
            super().__init__()
            self.body, self.shift = shaped(Residual(4, order)), shift

        def forward(self, x):
            return self.body(x + self.shift if self.training else x)

    arrays = {"x": np.random.default_rng(4).standard_normal((6, 12, 16, 16)).astype("f4")}
    pair = Net(0.0, 1), Net(0.5, -1)
    paths = recorded(tmp_path, *pair, arrays, modes=("eval", "train"), update=None)
    branches = [read_trace(path).manifest["branch"] for path in paths[:2]]
    assert branches[0]["evaluation"] == branches[1]["evaluation"]
    assert branches[0]["training"] != branches[1]["training"]
    rows = compare(paths)
    seen = {row.verdict for row in rows if row.stage == "gradients"}
    assert seen == {"equivalent", "vacuous"}
    assert "equivalent" not in {row.verdict for row in rows if row.stage == "training forward"}


def test_random_training_is_noted(tmp_path):
    class Noisy(nn.Module):
        def forward(self, x):
            return x + torch.rand_like(x) if self.training else x

    notes = record(tmp_path / "a.npz", Noisy(), {"x": np.ones((2, 2), "f4")}, modes=("train",))
    assert len(notes) == 1 and "random" in notes[0]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_cannot_be_recorded_is_refused(tmp_path):
    compiled = torch.compile(nn.Linear(2, 2))
    x = {"x": np.ones((1, 2), "f4")}
    with pytest.raises(ParityError, match="compiled"):
        record(tmp_path / "a.npz", compiled, x)
    with pytest.raises(ParityError, match="torch.nn.Module"):
        record(tmp_path / "a.npz", print, x)
    with pytest.raises(ParityError, match="precision"):
        record(tmp_path / "a.npz", nn.Linear(2, 2), x, precision="float16")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripted_and_parametrised_modules_are_leaves(tmp_path):
    plain = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    scripted = torch.jit.trace(nn.Sequential(nn.Linear(3, 3), nn.ReLU()), torch.ones(1, 3))
    normed = torch.nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
    model = nn.Sequential(plain, scripted, normed)
    record(tmp_path / "a.npz", model, {"x": np.ones((1, 2), "f4")})
    taps = read_trace(tmp_path / "a.npz").taps
    forward = [name for name in taps if name.startswith("forward/")]
    assert forward == [f"forward/{n}" for n in ("0.0", "0.1", "1", "2", "output")]
    assert "gradients/2.parametrizations.weight.original0" in taps
