"""The pair behind its one difference: batch norms of both sides keep the biased variance."""

from dataclasses import replace

from pair import pair as first


def as_flax(norm):
    from net_torch import BiasedNorm

    return BiasedNorm(norm.num_features, norm.eps, norm.momentum)


pair = replace(first, baseline=replace(first.baseline, replace={"BatchNorm2d": as_flax}))
