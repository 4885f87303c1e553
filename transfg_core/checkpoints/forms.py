"""Forms of weights: the names and layouts that one program gives a Vision Transformer, as a table.

A form is data. `plan.py` decides from a table and a file's headers what to read; `write_form` is
the way back. Letters: D width, K heads, d = D / K, M width of the MLP, P patch, T tokens,
C classes, Z channels that patches are cut from. `stems.py` has the tables of hybrids.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

from transfg_core.backend import Array, Arrays
from transfg_core.checkpoints.stems import StemForm
from transfg_core.config.vit import SIZES, VitConfig
from transfg_core.models.rows import Shape, resolve
from transfg_core.models.vit import sizes as vit_sizes

QKV = ("query", "key", "value")  # the order in which programs stack them


class Row(NamedTuple):
    """One array: its key, its shape in letters, its canonical name, and the transposition.

    After the transposition, K and d are neighbours and merge into D. {i} is the block's number.
    {block} and {norm} stand for the names of block and encoder norm, which depend on the placement.
    {qkv} stands for three parameters, stacked along the first axis in the order of `QKV`; `dims` is
    the shape of one. An array without a name is not part of the network. Without axes, the array is
    a vector after any number of axes of length 1. An array that `scales` holds a factor for each
    output of the module `name`: LayerScale (Touvron et al. 2021, arXiv 2103.17239).
    """

    key: str
    dims: str
    name: str
    axes: tuple[int, ...]
    scales: bool = False


class Step(NamedTuple):
    """One array to read: its key in the file, its row, and the parameters that it fills."""

    key: str
    row: Row
    names: tuple[str, ...]

    def shape(self, sizes: Mapping[str, int]) -> Shape:
        """The array's shape in the file."""
        first, *rest = resolve(self.row.dims, sizes)
        return first * max(len(self.names), 1), *rest

    def fits(self, shape: Shape, sizes: Mapping[str, int]) -> bool:
        """Whether an array of this shape is the step's."""
        expected = self.shape(sizes)
        return shape == expected or (not self.row.axes and shape == expected[-1:])


@dataclass(frozen=True)
class Form:
    """The names that one program gives the arrays of a Vision Transformer."""

    title: str  # for the user: "timm"
    block: str  # the start of the names in a block: "blocks.{i}."
    rows: tuple[Row, ...]
    prefixes: tuple[str, ...] = ()  # that may stand before every name
    renamed: tuple[tuple[str, str], ...] = ()  # of other versions: (part of a name, replacement)
    ignored: Mapping[str, str] = field(default_factory=dict)  # start of a name -> reason
    has_parts: bool = False  # part selection: the last block is named apart, and the head is wanted
    class_position: bool = True  # False: the class token has no position in newer files
    stem: StemForm | None = None  # of hybrids, if the program has any

    @cached_property
    def by_key(self) -> dict[str, Row]:
        """Dict: key -> row."""
        rows = {row.key: row for row in self.rows}
        assert len(rows) == len(self.rows)
        return rows

    def bare_names(self, keys: Iterable[str]) -> dict[str, str]:
        """Dict: name without prefix, as the table has it -> key of the file; the first key wins.

        The prefix is one of `prefixes`, or what stands before the class token, such as `backbone.`.
        """
        keys = list(keys)
        # a file with two such tokens is refused; more would only cost time
        before = [key.removesuffix(self.token) for key in self.tokens(keys)[:2]]
        candidates = [self._bare(keys, prefix) for prefix in ("", *self.prefixes, *before)]
        best = max(candidates, key=lambda names: sum(map(self.knows, names)))
        bare: dict[str, str] = {}
        for name, key in zip(best, keys, strict=True):
            bare.setdefault(name, key)
        return bare

    @cached_property
    def token(self) -> str:
        """The key of the class token."""
        return next(row.key for row in self.rows if row.name == "cls_token")

    def tokens(self, keys: Iterable[str]) -> list[str]:
        """The keys of a file that may be the class token of a model, with any prefix."""
        return [
            key
            for key in keys
            if key == self.token
            or (key.endswith(f".{self.token}") and not key.startswith(tuple(self.ignored)))
        ]

    def _bare(self, keys: Iterable[str], prefix: str) -> list[str]:
        # `model.vit.` may hold the body, and `model.` the head
        outer = prefix[: prefix[:-1].rfind(".") + 1]
        names = [key.removeprefix(prefix if key.startswith(prefix) else outer) for key in keys]
        for old, new in self.renamed:
            names = [name.replace(old, new) for name in names]
        return names

    def knows(self, name: str) -> bool:
        """Whether the table has a row for a name."""
        return self.pattern(name) in self.by_key

    def pattern(self, name: str) -> str:
        """A name with {i} for the block's number, as in the table."""
        match = self.in_block.match(name)
        return self.block + name[match.end() :] if match else name

    @cached_property
    def in_block(self) -> re.Pattern[str]:
        """Matches the start of a name in a block; its group is the block's number."""
        head, tail = map(re.escape, self.block.split("{i}"))
        return re.compile(rf"{head}(0|[1-9]\d{{0,5}}){tail}")

    def depth(self, names: Iterable[str]) -> int:
        """The number of blocks that the names show, a part layer included."""
        matches = [match for match in map(self.in_block.match, names) if match]
        numbers = {int(match[1]) for match in matches}
        highest = max(numbers, default=-1) + 1
        # one wild number must not make the table endless
        return int(self.has_parts) + (highest if highest <= len(matches) else len(numbers))

    def expand(self, model: VitConfig, depth: int) -> Iterator[Step]:
        """Every row for every block; no names if the array is not part of the network."""
        cut = model.placement == "transfg"  # the part layer is one of the blocks
        for row in self.rows:
            inner = range(depth - int(self.has_parts)) if "{i}" in row.key else range(1)
            for i in inner:
                last = cut and not self.has_parts and i == depth - 1
                block = "part_layer" if last else f"blocks.{i}"
                norm = "part_norm" if model.has_part_layer else "norm"
                names = [
                    row.name.format(block=block, norm=norm, qkv=part)
                    for part in (QKV if "{qkv}" in row.name else ("",))
                ]
                yield Step(row.key.format(i=i), row, tuple(filter(None, names)))
        if self.stem and model.stem != "none":
            for row in (Row(*values) for values in self.stem.rows(model.stem)):
                yield Step(row.key, row, (row.name,))

    def stem_of(self, names: Iterable[str], source: str) -> str:
        """The `model.stem` that a file's names show.

        Raises:
            UserError: no stem has the file's units.
        """
        return self.stem.found(names, source) if self.stem else "none"


def pair(key: str, dims: str, name: str) -> tuple[Row, Row]:
    """Weight and bias of a layer in PyTorch's layout; a bias is as long as the first axis."""
    axes = tuple(range(len(dims.split())))
    return (
        Row(f"{key}.weight", dims, name and f"{name}.weight", axes),
        Row(f"{key}.bias", dims.split()[0], name and f"{name}.bias", (0,)),
    )


def dimensions(form: Form, shapes: Mapping[str, Shape], depth: int) -> dict[str, int]:
    """Dict: letter -> number, as far as a file's shapes show them; `depth` is included."""
    found = {"depth": depth}
    model = VitConfig(placement="transfg" if form.has_parts else "none")
    for step in form.expand(model, min(depth, 1 + int(form.has_parts))):
        shape, letters = shapes.get(step.key, ()), step.row.dims.split()
        if step.names and len(shape) == len(letters):
            sizes = (shape[0] // len(step.names), *shape[1:])
            pairs = zip(letters, sizes, strict=True)
            found |= {letter: size for letter, size in pairs if letter not in found}
    return {letter: size for letter, size in found.items() if not letter.isdigit()}


def known_size(found: Mapping[str, int]) -> str | None:
    """The `model.size` of these dimensions, or None; heads count only if they are known."""
    for name, (width, heads, depth, mlp) in SIZES.items():
        sizes = (found.get("D"), found.get("depth"), found.get("M"), found.get("K", heads))
        if sizes == (width, depth, mlp, heads):
            return name
    return None


def describe(found: Mapping[str, int]) -> str:
    """The settings of `model` that the dimensions show, by name."""
    names = {"depth": "depth", "D": "width", "K": "heads", "M": "mlp", "P": "patch"}
    values = [f"{name} {found[letter]}" for letter, name in names.items() if found.get(letter)]
    size = known_size(found)
    return (f"model.size {size}: " if size else "") + ", ".join(values)


def write_form(form: Form, values: Mapping[str, Array], model: VitConfig) -> Arrays:
    """A plain Vision Transformer's parameters under the form's names; rows without values are left.

    `values` has canonical names and the shapes of the model.
    """
    assert model.placement == "none" and form.class_position
    sizes = vit_sizes(model)
    arrays = {}
    for step in form.expand(model, model.depth):
        if step.names and step.names[0] in values:
            parts = [_into_layout(values[name], step.row, sizes) for name in step.names]
            arrays[step.key] = np.ascontiguousarray(np.concatenate(parts))
    return arrays


def _into_layout(value: Array, row: Row, sizes: Mapping[str, int]) -> Array:
    """One parameter, with D split into K and d where the row has them, and transposed back."""
    if not row.axes:
        return value.reshape(resolve(row.dims, sizes))
    letters = [row.dims.split()[axis] for axis in row.axes]
    if "K" in letters:
        value = value.reshape([sizes[letter] for letter in letters])
    return value.transpose(np.argsort(row.axes))
