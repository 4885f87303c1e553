"""Small PyTorch networks for calibration: plain, residual and transformer, by sizes and activation.

All sizes are unequal. The middle block has most planted faults, so that there is a network before
and behind it.
"""

import torch
from torch import Tensor, nn

CLASSES = 7
SHAPE = (4, 3, 12, 10)  # images
PATCH = (3, 2)  # of the transformer: 4 x 5 = 20 tokens
HEADS = 2
DROPOUT = 0.1

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "hard swish": nn.Hardswish,
    "tanh": nn.Tanh,
}


class Layer(nn.Module):
    """act(norm(conv(x)))."""

    def __init__(self, inputs: int, width: int, act: type[nn.Module]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.act = act()

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, width, h, w)."""
        y: Tensor = self.act(self.norm(self.conv(x)))
        return y


class Plain(nn.Module):
    """A stem, a mean pool, and `depth` layers of convolution, batch norm and activation."""

    def __init__(self, depth: int, width: int, act: type[nn.Module]) -> None:
        super().__init__()
        self.stem = Layer(3, width, act)
        self.pool = nn.AvgPool2d(3, 2, 1)
        self.blocks = nn.Sequential(*(Layer(width, width, act) for _ in range(depth)))
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, h, w) -> (n, classes)."""
        y: Tensor = self.head(self.blocks(self.pool(self.stem(x))).mean((2, 3)))
        return y


class ResidualBlock(nn.Module):
    """act(x + norm(conv(act(norm(conv(x)))))); two attributes plant faults."""

    early = False  # the activation comes before the sum
    cut = False  # the shortcut has no gradient

    def __init__(self, width: int, act: type[nn.Module]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.act = act()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.act2 = act()

    def forward(self, x: Tensor) -> Tensor:
        """(n, width, h, w) -> the same."""
        y: Tensor = self.norm2(self.conv2(self.act(self.norm(self.conv(x)))))
        x = x.detach() if self.cut else x
        z: Tensor = x + self.act2(y) if self.early else self.act2(x + y)
        return z


class Residual(nn.Module):
    """A stem, a max pool, and blocks of two convolutions each."""

    def __init__(self, depth: int, width: int, act: type[nn.Module]) -> None:
        super().__init__()
        self.stem = Layer(3, width, act)
        self.pool = nn.MaxPool2d(3, 2, 1)
        blocks = (ResidualBlock(width, act) for _ in range(max(1, depth // 2)))
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, h, w) -> (n, classes)."""
        y: Tensor = self.head(self.blocks(self.pool(self.stem(x))).mean((2, 3)))
        return y


class Attention(nn.Module):
    """Multi-head attention with separate projections."""

    factor = 1.0  # of the scale, to plant a fault
    interleaved = False  # the heads are the last axis of the split

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.softmax = nn.Softmax(-1)
        self.out = nn.Linear(width, width)
        self.scale = (width // HEADS) ** -0.5

    def split(self, x: Tensor) -> Tensor:
        """(n, t, width) -> (n, heads, t, width / heads)."""
        count, tokens, width = x.shape
        if self.interleaved:
            return x.reshape(count, tokens, width // HEADS, HEADS).permute(0, 3, 1, 2)
        return x.reshape(count, tokens, HEADS, width // HEADS).transpose(1, 2)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of each head."""
        y: Tensor = self.softmax(q @ k.transpose(2, 3) * (self.scale * self.factor)) @ v
        return y

    def forward(self, x: Tensor) -> Tensor:
        """(n, t, width) -> the same."""
        q, k, v = (self.split(f(x)) for f in (self.query, self.key, self.value))
        y: Tensor = self.out(self.mix(q, k, v).transpose(1, 2).flatten(2))
        return y


class TransformerBlock(nn.Module):
    """x + attention(norm(x)), then x + MLP(norm(x)); two attributes plant faults."""

    early = False  # the shortcut starts behind the norm
    cut = False  # the shortcut has no gradient

    def __init__(self, width: int, act: type[nn.Module]) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width)
        self.norm2 = nn.LayerNorm(width)
        self.conv = nn.Linear(width, 3 * width)  # has this name in all kinds of networks
        self.act = act()
        self.conv2 = nn.Linear(3 * width, width)
        self.drop = nn.Dropout(DROPOUT)

    def forward(self, x: Tensor) -> Tensor:
        """(n, t, width) -> the same."""
        x = x + self.attention(self.norm(x))
        y = self.norm2(x)
        z = self.drop(self.conv2(self.act(self.conv(y))))
        shortcut = y if self.early else x
        total: Tensor = (shortcut.detach() if self.cut else shortcut) + z
        return total


class Transformer(nn.Module):
    """Patches, positions, `depth` blocks, a norm, and a head on the mean token."""

    def __init__(self, depth: int, width: int, act: type[nn.Module]) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, PATCH, stride=PATCH)
        tokens = (SHAPE[2] // PATCH[0]) * (SHAPE[3] // PATCH[1])
        self.position = nn.Parameter(torch.zeros(1, tokens, width))
        self.blocks = nn.Sequential(*(TransformerBlock(width, act) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, h, w) -> (n, classes)."""
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.position
        y: Tensor = self.head(self.norm(self.blocks(tokens)).mean(1))
        return y


KINDS: dict[str, type[nn.Module]] = {
    "plain": Plain,
    "residual": Residual,
    "transformer": Transformer,
}


def build(kind: str, activation: str, depth: int, width: int) -> nn.Module:
    """A network of a kind."""
    return KINDS[kind](depth, width, ACTIVATIONS[activation])


def middle(model: nn.Module) -> nn.Module:
    """The middle one of the blocks."""
    blocks = model.get_submodule("blocks")
    assert isinstance(blocks, nn.Sequential)
    return blocks[len(blocks) // 2]
