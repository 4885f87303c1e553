"""SwinFC, in Jittor: a Swin Transformer with classifiers on three stages, and chosen tokens.

Source: Xiang, Chen and Yang 2023 (doi 10.3778/j.issn.1002-8331.2211-0456); docs/spec.md, "SwinFC".
Twin: `transfg_torch/models/swinfc.py`. How the numbers flow:

    images -> backbone -> the maps of stages 2, 3 and 4

    each of these maps -> Eaca (external and cross-space attention: the same shape)
                       -> Align (the same width F for every stage)
    all three          -> fuse (FFM) -> a vector for each stage
    each vector        -> its classifier -> stage_logits

    map of stage 4     -> norm -> mean over tokens: features -> head: logits
    attention of stage 4 -> a token for each block and head (FSM) -> their mean: part_features

Settings switch each module off: without FFM, a stage's vector is the mean of its map. Stage logits
are computed for training, and where `model.prediction` is `sum`: then the answer is the sum of
logits and stage logits, else the logits. The loss adds cross-entropies of `logits` and
`stage_logits`, and the contrastive loss of `part_features` (`transfg_jt/loss.py`).

Shapes: B batch; T tokens and F channels of a stage's map of H x W tokens, T3 and D those of the
last; Q chosen tokens, one for each block and head of the last stage; C classes.
"""

import itertools

import jittor as jt
from jittor import Var, nn

from transfg_core.config.swinfc import SwinFCConfig
from transfg_core.models.multi_scale import BRANCHES
from transfg_core.models.swin import map_sizes
from transfg_jt.attention import at_least_float32
from transfg_jt.checkpointing import recompute
from transfg_jt.models.multi_scale import Align, Eaca, LinearHead, MlpHead
from transfg_jt.models.output import Output
from transfg_jt.models.parts import select_parts
from transfg_jt.models.swin import Stages, Swin, crop
from transfg_jt.models.taps import Tap, no_tap, under
from transfg_jt.ops.bfloat16 import cast_once, to_float32
from transfg_jt.ops.exact import mean_over_positions, mean_over_tokens, number
from transfg_jt.scale_fusion import lacking_weights
from transfg_jt.window_attention import column_means


class SwinFC(Swin):
    """Swin Transformer with the modules of SwinFC that the configuration switches on."""

    def __init__(self, config: SwinFCConfig, image_size: tuple[int, int]) -> None:
        super().__init__(config, image_size)
        self.map_sizes = [map_sizes(image_size, config)[stage] for stage in BRANCHES]
        widths = [config.width * 2**stage for stage in BRANCHES] if config.branches else []
        self.eaca = nn.ModuleList([Eaca(width, config) for width in widths])
        if config.ffm:
            self.align = nn.ModuleList([Align(width, config) for width in widths])
            widths = [config.fused_width] * len(widths)
        head = LinearHead if config.stage_head == "linear" else MlpHead
        self.stage_heads = nn.ModuleList([head(width, config) for width in widths])

    def execute(self, images: Var, tap: Tap = no_tap) -> Output:
        """(B, 3, H, W) -> Output, with features (B, D) of the last stage."""
        stages = self.stage_maps(images, tap)
        sums = self.config.prediction == "sum"
        # stage logits that nobody reads are not computed
        wanted = self.config.branches and (self.is_train or sums or tap is not no_tap)
        stage_logits = self.classify_stages(stages.maps[1:], tap) if wanted else ()
        x = tap("norm", self.norm(stages.maps[-1]))
        parts = self.select(x, stages, tap) if self.config.fsm else (None, None, None)
        # jittor block for 2 lines: as in `Swin`
        features = tap("features", mean_over_tokens(x))
        logits = to_float32(tap("logits", self.head(cast_once(features))))
        prediction = sum(map(at_least_float32, (logits, *stage_logits))) if sums else None
        return Output(logits, features, *parts, stage_logits, prediction)

    def classify_stages(self, maps: list[Var], tap: Tap) -> tuple[Var, ...]:
        """The maps of stages 2 to 4, each (B, T, F) -> the logits of each stage, (B, C)."""
        grids = []
        for stage, x in enumerate(maps):
            x = x.transpose(1, 2).reshape(x.shape[0], -1, *self.map_sizes[stage])
            grids.append(tap(f"map{stage + 2}", x))
        if self.config.ea or self.config.ca:
            grids = self.each("eaca", self.eaca, grids, tap)
        if self.config.ffm:
            grids = self.each("align", self.align, grids, tap)
            pooled = fuse(grids, self.config.similarity == "cosine")
        else:
            # jittor: its mean has float32 constants
            pooled = [mean_over_positions(x) for x in grids]
        pooled = [tap(f"pooled{stage + 2}", x) for stage, x in enumerate(pooled)]
        return tuple(self.each("stage_logits", self.stage_heads, pooled, tap))

    def each(self, name: str, modules: nn.ModuleList, inputs: list[Var], tap: Tap) -> list:
        """One module for each stage: its outputs, with taps named after the stage."""
        outputs = []
        for stage, (module, x) in enumerate(zip(modules, inputs, strict=True)):
            if self.grad_checkpointing and tap is no_tap:
                x = recompute(module, x)
            else:
                x = module(x, under(tap, f"{name}{stage + 2}"))
            outputs.append(tap(f"{name}{stage + 2}", x))
        return outputs

    def select(self, x: Var, stages: Stages, tap: Tap) -> tuple[Var, Var, Var]:
        """FSM: the token that gets most attention, for each block and head of stage 4 (eq. 13, 14).

        Last map after the norm (B, T3, D) -> index (B, Q), counted from 1 as in every model, scores
        (B, Q, T3), and the mean of the chosen tokens (B, D). A score is the mean attention that a
        token gets from the tokens of its window. If there are several windows, they compete: of a
        window of N tokens, the m of one region share m/N, so small regions are chosen less. An
        index has no gradient.
        """
        with jt.no_grad():
            means = []
            for block, q, k in zip(
                self.stages[-1].blocks, stages.queries, stages.keys, strict=True
            ):
                mean = column_means(q, k, block.attn.bias_table, block.windows)
                means.append(crop(mean.transpose(1, 2), block.windows).transpose(1, 2))
            scores = tap("part_scores", jt.concat(means, dim=1))
            index = tap("part_index", select_parts(scores))
        where = (index - 1).unsqueeze(-1).expand(-1, -1, x.shape[-1])
        tokens = tap("part_tokens", x.gather(1, where))
        # jittor: as above
        return index, scores, tap("part_features", mean_over_tokens(tokens))


def fuse(maps: list[Var], cosine: bool) -> list[Var]:
    """FFM: each map plus what it lacks of the others, then its mean (equations 7 to 12).

    Maps (B, F, H, W) -> vectors (B, F). Of a map x and another y, each position of x gets
    y · softmax(-xᵀ y) over y's positions: most of those that are least like it. A classifier reads
    only the mean over x's positions. That is one sum over y's positions, with the mean of the
    weights, so no sum for each position of x is formed.
    Inferred: the product is not scaled. `cosine` is the other choice: the cosine times √F, which
    has a variance of 1 where positions are random.
    """
    positions = [at_least_float32(x).flatten(2).transpose(1, 2) for x in maps]
    compared = [unit_positions(x) for x in positions] if cosine else positions
    # jittor: its mean has float32 constants
    fused = [mean_over_tokens(x) for x in positions]
    for i, j in itertools.combinations(range(len(maps)), 2):
        by_i, by_j = lacking_weights(compared[i], compared[j])
        fused[i] = fused[i] + weighted_sum(by_j, positions[j])
        fused[j] = fused[j] + weighted_sum(by_i, positions[i])
    return fused


def unit_positions(x: Var) -> Var:  # native: Jittor's normalize has eps 1e-30
    """Positions of length F^(1/4), so that a product of two is √F times their cosine: (B, T, F)."""
    squares = (x * x).sum(-1, keepdims=True).maximum(number(1e-24, x))
    return x / jt.sqrt(squares) * number(x.shape[-1] ** 0.25, x)


def weighted_sum(weights: Var, x: Var) -> Var:  # native: products of batches are slow
    """Sum over positions, in the precision of x: (B, T), (B, T, F) -> (B, F)."""
    return (weights.unsqueeze(2) * x).sum(1)
