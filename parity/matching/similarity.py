"""How alike two names are: their words, their numbers, and the role of a parameter.

Frameworks and authors spell one thing in many ways: `layer1.0.conv1.weight` is also
`layer1_0/conv1/kernel`, and `blocks.3.attn.qkv` is also `encoder.layer.3.attention.qkv`. The tables
below hold the usual spellings.
"""

import re
from functools import lru_cache

# role of a parameter in its module -> spellings of it, as the last part of a name
ROLES = {
    "weight": ("weight", "w", "kernel", "gamma", "scale", "filter", "filters", "embedding"),
    "bias": ("bias", "b", "beta", "offset"),
    "mean": ("running_mean", "mean", "moving_mean"),
    "variance": ("running_var", "var", "moving_variance", "moving_var", "variance"),
    "count": ("num_batches_tracked",),
}
ROLE_OF = {spelling: role for role, spellings in ROLES.items() for spelling in spellings}
SPELLINGS = "|".join(sorted(ROLE_OF, key=len, reverse=True))
ENDING = re.compile(rf"(?:(.*)[./:])?({SPELLINGS})|(.+)_(weight|bias)")

# word -> spellings of it; a word that is nowhere here stands for itself
WORDS = {
    "attention": ("attn", "attention", "attentions", "msa", "mhsa", "multiheadattention"),
    "block": ("block", "blocks", "layer", "layers", "encoderblock", "resblock", "encoderlayer"),
    "norm": (
        "norm",
        "ln",
        "bn",
        "layernorm",
        "batchnorm",
        "groupnorm",
        "norms",
        "gn",
        "normalization",
    ),
    "linear": ("linear", "dense", "fc", "proj", "projection", "lin", "denselayer"),
    "convolution": ("conv", "convolution", "convs"),
    "embedding": ("embed", "embedding", "embeddings", "emb"),
    "position": ("pos", "position", "posembed", "positional"),
    "mlp": ("mlp", "ffn", "feedforward", "ff"),
    "class": ("cls", "class"),
    "downsample": ("downsample", "shortcut", "skip", "downsampling"),
    "head": ("head", "heads", "classifier"),
    "query": ("q", "query", "queries", "wq"),
    "key": ("k", "key", "keys", "wk"),
    "value": ("v", "value", "values", "wv"),
    "output": ("o", "out", "output", "wo"),
    "input": ("in", "input"),
    "branch": ("branch", "branches"),
    "auxiliary": ("aux", "auxiliary"),
}
ORDINALS = {"before": "1", "pre": "1", "after": "2", "post": "2"}  # `layernorm_before`: `norm1`
WORD_OF = {spelling: word for word, spellings in WORDS.items() for spelling in spellings}
# parts that wrap a whole model and say nothing
WRAPPERS = {"module", "model", "params", "param", "batch", "stats", "net", "orig", "mod", "onnx"}
TOKEN = re.compile(r"\d+|[a-z]+|[A-Z]+(?![a-z])|[A-Z][a-z]*")


def split_role(name: str) -> tuple[str, str]:
    """The path of the module and the role of the parameter; role "" for any other name."""
    found = ENDING.fullmatch(name)
    if not found:
        return name, ""
    path, role, joined, joined_role = found.groups()
    return joined or path or "", ROLE_OF[role or joined_role]


@lru_cache(maxsize=65536)
def parts(path: str) -> tuple[str, ...]:
    """The words and numbers of a path, in lower case and in one spelling, without wrappers."""
    found = [token.lower() for token in TOKEN.findall(path)]
    spelled = [WORD_OF.get(word, ORDINALS.get(word, word)) for word in found]
    return tuple(word for word in spelled if word not in WRAPPERS)


@lru_cache(maxsize=65536)
def words(path: str) -> tuple[str, ...]:
    """The words of a path."""
    return tuple(part for part in parts(path) if not part.isdigit())


@lru_cache(maxsize=65536)
def numbers(path: str) -> tuple[int, ...]:
    """The numbers in a path, in order."""
    return tuple(int(part) for part in parts(path) if part.isdigit())


def canonical(name: str) -> tuple[str, ...]:
    """The name in one spelling: words and numbers in order, and the role."""
    path, role = split_role(name)
    return (*parts(path), role)


@lru_cache(maxsize=65536)
def word_likeness(one: tuple[str, ...], other: tuple[str, ...]) -> float:
    """0 to 1: the share of words that have a partner on the other side (Dice's coefficient).

    Words that share half of their pairs of letters count as half a partner: `gate`, `gating`.
    """
    if not one or not other:
        return 0.0 if one or other else 1.0
    left = list(other)
    total = 0.0
    rest = []
    for word in one:
        if word in left:
            left.remove(word)
            total += 1.0
        else:
            rest.append(word)
    for word in rest:
        for partner in left:
            if letters_alike(word, partner) >= 0.5:
                left.remove(partner)
                total += 0.5
                break
    return 2 * total / (len(one) + len(other))


@lru_cache(maxsize=65536)
def letters_alike(one: str, other: str) -> float:
    """The share of pairs of neighbouring letters that two words have in common (Dice)."""
    pairs = [{word[i : i + 2] for i in range(len(word) - 1)} for word in (one, other)]
    return 2 * len(pairs[0] & pairs[1]) / max(1, len(pairs[0]) + len(pairs[1]))


def number_likeness(one: tuple[int, ...], other: tuple[int, ...]) -> float:
    """0 to 1: the share of equal numbers, counted from the left; 0.5 if one side has none."""
    if not one or not other:
        return 1.0 if one == other else 0.5
    equal = sum(a == b for a, b in zip(one, other, strict=False))
    return equal / max(len(one), len(other))


def likeness(one: str, other: str) -> float:
    """0 to 1: how alike two paths are."""
    return 0.7 * word_likeness(words(one), words(other)) + 0.3 * number_likeness(
        numbers(one), numbers(other)
    )
