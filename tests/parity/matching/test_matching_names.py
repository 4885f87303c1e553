"""Which name is which: lists that real programs have, and lists with one thing changed."""

import json
import zlib
from itertools import permutations
from pathlib import Path

import foreign_forms
import foreign_namings
import numpy as np
import pytest
from matching.name_lists import every_name_once, golden, wrong_pairs

from parity.errors import ParityError
from parity.matching.named import Named, as_named
from parity.matching.names import match

NAMES = json.loads(
    (Path(__file__).parents[2] / "core/checkpoints/golden/names.json").read_text(encoding="utf-8")
)


def vits():
    """Program -> the same random ViT under its names; google's and big_vision's are transposed."""
    own = foreign_forms.canonical()
    writers = {
        "timm": foreign_forms.timm,
        "transformers": foreign_forms.hugging_face,
        "transformers 5": foreign_forms.hugging_face_5,
        "torchvision": foreign_forms.torchvision,
        "vit-pytorch": foreign_forms.vit_pytorch,
        "google": foreign_forms.google,
        "big_vision": foreign_forms.big_vision,
    }
    return {"own": own} | {name: write(own) for name, write in writers.items()}


def resnets(kind):
    """Program -> the same random ResNet, in the order that the program has."""
    own = foreign_namings.canonical_resnet(kind)
    models = {"own": own} | {key: write(own) for key, write in foreign_namings.RESNETS.items()}
    return {key: ordered(arrays, f"{key} {kind}") for key, arrays in models.items()}


def swins():
    own = foreign_namings.canonical_swin()
    models = {"own": own} | {key: write(own) for key, write in foreign_namings.SWINS.items()}
    return {key: ordered(arrays, key) for key, arrays in models.items()}


def ordered(arrays, key):
    """The arrays in the program's own order, if names.json has it; without counters."""
    names = NAMES.get(key, arrays)
    return {n: arrays[n] for n in names if n in arrays and not n.endswith("batches_tracked")}


MODELS = {
    "vit": vits(),
    "resnet basic": resnets("basic"),
    "resnet bottleneck": resnets("bottleneck"),
    "swin": swins(),
}
PAIRS = [(kind, *pair) for kind, models in MODELS.items() for pair in permutations(models, 2)]


def numbers(array):
    return zlib.crc32(np.sort(array, axis=None).tobytes())


@pytest.mark.parametrize("case", PAIRS, ids=" : ".join)
def test_no_pair_of_two_programs_names_is_wrong(case):
    """The truth is in the numbers, which `match` does not see here."""
    kind, ours, theirs = case
    baseline, candidate = MODELS[kind][ours], MODELS[kind][theirs]
    found = match(as_named(baseline, known=False), as_named(candidate, known=False))
    places = {numbers(value): name for name, value in baseline.items()}
    truth = {name: places.get(numbers(value)) for name, value in candidate.items()}
    assert wrong_pairs(found, truth) == []
    common = sum(name is not None for name in truth.values())
    # `features.0.2` says nothing, and the order of transformers' list is that of the alphabet
    lost = 2 if {ours, theirs} == {"torchvision swin", "transformers swin"} else 0
    assert len(found.pairs) >= common - lost
    assert every_name_once(found, as_named(baseline, known=False), as_named(candidate, known=False))


@pytest.mark.parametrize("model", ["resnet18", "densenet121", "googlenet"])
def test_torchvision_and_jittor(model):
    baseline, candidate = golden(f"torchvision_{model}"), golden(f"jittor_{model}")
    found = match(baseline, candidate)
    assert {pair.how for pair in found.pairs} == {"equal"}
    assert len(found.pairs) == len(baseline) == len(candidate)


def test_timm_and_torchvision_vit():
    """No name but the class token's is alike; every array has its partner."""
    baseline, candidate = golden("timm_vit_tiny"), golden("torchvision_vit")
    found = match(baseline, candidate)
    assert len(found.pairs) == len(baseline) and not found.doubts
    names = found.mapping()
    assert names["encoder.layers.encoder_layer_1.ln_2.weight"] == "blocks.1.norm2.weight"
    assert names["encoder.layers.encoder_layer_2.mlp.3.bias"] == "blocks.2.mlp.fc2.bias"
    assert names["encoder.layers.encoder_layer_0.self_attention.in_proj_weight"] == (
        "blocks.0.attn.qkv.weight"
    )


@pytest.mark.parametrize("operations", [True, False])
def test_timm_and_jittor_image_models_taps(operations):
    """One dropout module that is called twice here and two there; Identities on one side only."""
    baseline, candidate = golden("timm_vit.taps"), golden("jimm_vit.taps")
    if not operations:
        baseline = [Named(item.name, item.shape) for item in baseline]
        candidate = [Named(item.name, item.shape) for item in candidate]
    found = match(baseline, candidate)
    renamed = {pair.candidate: pair.baseline for pair in found.renamed()}
    expected = {}
    for i in range(2):
        expected[f"blocks.{i}.drop_path"] = f"blocks.{i}.drop_path1"
        expected[f"blocks.{i}.drop_path#2"] = f"blocks.{i}.drop_path2"
        expected[f"blocks.{i}.mlp.drop"] = f"blocks.{i}.mlp.drop1"
        expected[f"blocks.{i}.mlp.drop#2"] = f"blocks.{i}.mlp.drop2"
    if operations:  # else nothing tells it from the dropout beside it
        expected["pre_logits"] = "fc_norm"
    assert renamed == expected
    assert found.only_candidate == ("blocks.0.attn.attn_drop", "blocks.1.attn.attn_drop")
    assert "blocks.1.attn.q_norm" in found.only_baseline


def in_the_manner_of_keras(items):
    """`conv2d_3/kernel`, `batch_normalization_7/gamma`, with kernels as HWIO and (in, out)."""
    kinds = {4: "conv2d", 2: "dense", 1: "batch_normalization"}
    roles = {"running_mean": "moving_mean", "running_var": "moving_variance"}
    ranks = {i.name.rpartition(".")[0]: len(i.shape) for i in items if i.name.endswith("weight")}
    names, found, truth = {}, [], {}
    for item in items:
        path, _, role = item.name.rpartition(".")
        kind = kinds[ranks[path]]
        count = sum(name.startswith(kind) for name in names.values())
        module = names.setdefault(path, f"{kind}_{count}")
        shape = item.shape
        if role == "weight" and ranks[path] > 1:
            shape, role = (*shape[2:], shape[1], shape[0]), "kernel"
        elif ranks[path] == 1:
            role = {"weight": "gamma", "bias": "beta"}.get(role, roles.get(role, role))
        found.append(Named(f"{module}/{role}", shape))
        truth[found[-1].name] = item.name
    return found, truth


@pytest.mark.parametrize("model", ["resnet18", "googlenet", "densenet121"])
def test_names_that_only_count(model):
    """Keras' and flax's names say what a layer is and how many of its kind come before it."""
    baseline = golden(f"torchvision_{model}")
    candidate, truth = in_the_manner_of_keras(baseline)
    found = match(baseline, candidate)
    assert wrong_pairs(found, truth) == []
    assert len(found.pairs) >= 0.97 * len(baseline)
    # in the order of the alphabet, as JAX sorts its trees: fewer, but none wrong
    found = match(baseline, sorted(candidate, key=lambda item: item.name))
    assert wrong_pairs(found, truth) == []
    assert len(found.pairs) + sum(len(d.candidate) for d in found.doubts) == len(candidate)


# without these, as many modules of the block as of the candidate's one kind of name are left
TELLING = {"resnet18": ["layer1.1.bn2", "layer1.1.conv2"], "googlenet": []}


@pytest.mark.parametrize("model", ["resnet18", "googlenet"])
def test_a_missing_layer_shifts_all_numbers(model):
    baseline = golden(f"torchvision_{model}")
    modules = list(dict.fromkeys(item.name.rpartition(".")[0] for item in baseline))
    for missing in [*modules[::13], *TELLING[model]]:
        left = [item for item in baseline if item.name.rpartition(".")[0] != missing]
        paths = list(dict.fromkeys(item.name.rpartition(".")[0] for item in left))
        truth = {
            f"layer_{paths.index(item.name.rpartition('.')[0])}.{item.name.rpartition('.')[2]}": (
                item.name
            )
            for item in left
        }
        shapes = {item.name: item.shape for item in baseline}
        candidate = [Named(name, shapes[theirs]) for name, theirs in truth.items()]
        assert wrong_pairs(match(baseline, candidate), truth) == [], missing


LINEAR = [Named(f"{name}.weight", (8, 8)) for name in ("one", "two", "three")]


def test_a_missing_bias_is_in_a_list_and_its_module_is_found():
    baseline = [*LINEAR, Named("two.bias", (8,))]
    candidate = [Named(f"dense_{i}.kernel", (8, 8)) for i in range(3)]
    found = match(baseline, candidate)
    assert found.mapping()["dense_1.kernel"] == "two.weight"
    assert found.only_baseline == ("two.bias",)


def test_counting_from_another_number():
    """`conv1` of one side is not `conv1` of the other, though the names are equal."""
    baseline = [Named(f"conv{i}.weight", (8, 8, 3, 3)) for i in (1, 2, 3)]
    candidate = [Named(f"conv{i}.weight", (8, 8, 3, 3)) for i in (0, 1, 2)]
    assert match(baseline, candidate).mapping() == {
        f"conv{i}.weight": f"conv{i + 1}.weight" for i in range(3)
    }
    # spelled otherwise as well
    candidate = [Named(f"convs.{i}.kernel", (3, 3, 8, 8)) for i in range(3)]
    assert match(baseline, candidate).mapping() == {
        f"convs.{i}.kernel": f"conv{i + 1}.weight" for i in range(3)
    }


def test_numbers_against_the_order_are_a_doubt():
    """Defined in another order: is `dense_1` the first, or is the first one of the list?"""
    baseline = [Named(f"fc{i}.weight", (8, 8)) for i in (1, 2)]
    candidate = [Named(f"mixer_{i}.kernel", (8, 8)) for i in (2, 1)]
    found = match(baseline, candidate)
    assert not found.pairs and len(found.doubts) == 1


def test_equal_names_in_another_order_are_one():
    shuffled = [LINEAR[2], LINEAR[0], LINEAR[1]]
    assert all(
        p.baseline == p.candidate and p.how == "equal" for p in match(LINEAR, shuffled).pairs
    )


def test_exchanged_layers_are_in_doubt_until_their_numbers_are_known():
    """Names that are unlike, two of them exchanged: order alone would be wrong."""
    rng = np.random.default_rng(0)
    arrays = {name: rng.standard_normal((8, 8)) for name in ("alpha", "gate", "mixer")}
    baseline = {f"{name}.weight": value for name, value in arrays.items()}
    candidate = {
        "gating.weight": arrays["gate"],
        "aleph.weight": arrays["alpha"],
        "mix.weight": arrays["mixer"],
    }
    found = match(as_named(baseline, known=False), as_named(candidate, known=False))
    truth = {
        "gating.weight": "gate.weight",
        "aleph.weight": "alpha.weight",
        "mix.weight": "mixer.weight",
    }
    assert wrong_pairs(found, truth) == []
    found = match(as_named(baseline), as_named(candidate))
    assert found.mapping() == truth and {pair.how for pair in found.pairs} == {"values"}


def test_unequal_numbers_refute_what_names_suggest():
    rng = np.random.default_rng(1)
    one, other = rng.standard_normal((2, 5, 7))
    baseline = [Named("encoder.fc.weight", (5, 7), value=one)]
    candidate = [Named("enc.dense.weight", (5, 7), value=other)]
    found = match(baseline, candidate)
    assert not found.pairs and "numbers differ" in found.doubts[0].why
    assert match(baseline, [Named("enc.dense.weight", (5, 7))]).pairs
    assert (
        match(baseline, [Named("enc.dense.weight", (7, 5), value=one.T)]).pairs[0].how == "values"
    )


def test_onnx_initialisers_are_found_by_their_numbers():
    """`onnx::Conv_193` says nothing; if a batch norm was folded into it, nothing fits."""
    rng = np.random.default_rng(2)
    arrays = {f"layer{i}.conv.weight": rng.standard_normal((8, 8, 3, 3)) for i in range(3)}
    arrays |= {f"layer{i}.bn.bias": rng.standard_normal(8) for i in range(3)}
    names = [f"onnx::Conv_{193 + 3 * i}" for i in range(3)]
    candidate = {name: arrays[f"layer{i}.conv.weight"] for i, name in enumerate(names)}
    found = match(as_named(arrays), as_named(dict(reversed(candidate.items()))))
    assert found.mapping() == {name: f"layer{i}.conv.weight" for i, name in enumerate(names)}
    folded = {name: value * 1.5 for name, value in candidate.items()}
    found = match(as_named(arrays), as_named(folded))
    assert not found.pairs


def test_a_vector_alone_says_too_little():
    """A folded bias (8,) is not the weight of a norm, though nothing else has its shape."""
    baseline = [Named("bn1.weight", (8,)), Named("bn1.bias", (8,)), Named("bn1.running_mean", (8,))]
    found = match(baseline, [Named("Conv_194", (8,))])
    assert not found.pairs


def test_operations_decide_between_equal_shapes():
    baseline = [Named("s", (2, 5), operation="relu"), Named("t", (2, 5), operation="dropout")]
    candidate = [Named("x", (2, 5), operation="dropout"), Named("y", (2, 5), operation="relu")]
    assert match(baseline, candidate).mapping() == {"x": "t", "y": "s"}


def test_query_key_value_in_one_and_in_three():
    """The fused one is named, not paired; the projection beside it is then clear."""
    models = MODELS["vit"]
    found = match(as_named(models["own"], False), as_named(models["timm"], False))
    assert len(found.fused) == 4
    weight = found.fused[0]
    assert (weight.side, weight.name) == ("candidate", "blocks.0.attn.qkv.weight")
    assert weight.parts == tuple(f"blocks.0.attn.{w}.weight" for w in ("query", "key", "value"))
    assert weight.lines() == [
        r"blocks\.(\d+)\.attn\.qkv\.weight: blocks.\g<1>.attn.query.weight + "
        r"blocks.\g<1>.attn.key.weight + blocks.\g<1>.attn.value.weight"
    ]
    assert found.mapping()["blocks.0.attn.proj.weight"] == "blocks.0.attn.out.weight"


def test_patterns_come_first():
    found = match(LINEAR, LINEAR, {"one(.*)": r"two\1", "two(.*)": r"one\1", "seven": "eight"})
    assert {p.candidate: (p.baseline, p.how) for p in found.pairs} == {
        "one.weight": ("two.weight", "pattern"),
        "two.weight": ("one.weight", "pattern"),
        "three.weight": ("three.weight", "equal"),
    }
    assert found.unused == ("seven",)


def test_wrong_patterns_and_names_are_refused():
    with pytest.raises(ParityError, match=r"two of the candidate's names, two.weight and one"):
        match(LINEAR, LINEAR, {"one.*|two.*": "two.weight"})
    with pytest.raises(ParityError, match=r"names: \(one"):
        match(LINEAR, LINEAR, {"(one": "two"})
    with pytest.raises(ParityError, match="found one.weight twice"):
        match([LINEAR[0], LINEAR[0]], LINEAR)


def test_equal_names_of_other_shapes_are_compared_if_nothing_else_fits():
    found = match([Named("fc.weight", (10, 8))], [Named("fc.weight", (7, 8))])
    assert found.pairs[0].confidence == 0.5
    assert match([], []).pairs == ()
