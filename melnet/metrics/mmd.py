"""Maximum mean discrepancy between two sets of windows, as in the kernel audio distance (KAD, arXiv 2502.15602)."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import pdist
from sklearn.metrics.pairwise import rbf_kernel
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # carries no types

from melnet.metrics.windows import Windows, standardised_features

SCALE = 100.0  # as KAD has it
RESAMPLES = 200
PERCENTILES = (5, 95)


@dataclass(frozen=True)
class Mmd:
    """100 times the squared maximum mean discrepancy; its expectation is 0 for equal distributions."""

    value: float
    """an unbiased estimate, which may be below zero"""
    low: float
    """5th percentile over resamples of whole groups"""
    high: float
    """95th percentile"""


def mmd(generated: Windows, reference: Windows, *, seed: int) -> Mmd | None:
    """Squared maximum mean discrepancy between the features of generated and of reference windows.

    MMD² = E k(x, x') + E k(y, y') − 2 E k(x, y) with k(x, y) = exp(−|x − y|² / 2σ²). σ is the median distance between
    two reference windows; the features are standardised by the reference. Windows of one recording resemble each other,
    so x and x' are taken from different groups, and so are y and y'; without that the estimate would have a bias. If
    each window is a group of its own, the estimate is that of KAD. The bootstrap draws groups of both sides with
    replacement.

    Returns None if a side has fewer than 2 groups, or if most reference windows are equal.

    >>> x = np.random.default_rng(0).normal(size=(600, 8, 8))
    >>> first, second = (Windows(half, np.arange(300)) for half in (x[:300], x[300:]))
    >>> same, other = mmd(first, second, seed=0), mmd(Windows(first.values + 1, first.group), second, seed=0)
    >>> same.low < 0 < same.high < other.low
    True
    """
    if min(len(np.unique(generated.group)), len(np.unique(reference.group))) < 2:
        return None
    x, y = standardised_features(generated, reference)
    sigma = float(np.median(pdist(y)))
    if sigma == 0:
        return None
    gamma = 1 / (2 * sigma**2)
    with threadpool_limits(1, "blas"):  # the number of threads can change the last bit
        kernels = [rbf_kernel(first, second, gamma) for first, second in ((x, x), (y, y), (x, y))]
    to_x, to_y = _indicators(generated.group), _indicators(reference.group)
    sums = to_x.T @ kernels[0] @ to_x, to_y.T @ kernels[1] @ to_y, to_x.T @ kernels[2] @ to_y
    rng = np.random.default_rng(seed)
    draws_x, draws_y = (_draws(to.shape[1], rng) for to in (to_x, to_y))
    sizes_x, sizes_y = to_x.sum(axis=0), to_y.sum(axis=0)
    values = SCALE * (
        _mean_within(sums[0], sizes_x, draws_x)
        + _mean_within(sums[1], sizes_y, draws_y)
        - 2 * np.einsum("ri,ij,rj->r", draws_x, sums[2], draws_y) / ((draws_x @ sizes_x) * (draws_y @ sizes_y))
    )
    low, high = np.nanpercentile(values[1:], PERCENTILES)  # NaN where all draws of a side are one group
    return Mmd(float(values[0]), float(low), float(high))


def _indicators(group: np.ndarray) -> np.ndarray:
    """(n, groups): 1 where a window is of a group."""
    return (group[:, None] == np.unique(group)).astype(np.float64)


def _draws(groups: int, rng: np.random.Generator) -> np.ndarray:
    """How often each group is drawn: once each in the first row, then at random; (1 + RESAMPLES, groups)."""
    return np.concatenate([np.ones((1, groups)), rng.multinomial(groups, np.full(groups, 1 / groups), RESAMPLES)])


def _mean_within(sums: np.ndarray, sizes: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Mean of the kernel over pairs of different groups for each row of draws, from its sums (groups, groups)."""
    across = 1 - np.eye(len(sums))
    total, pairs = (
        np.einsum("ri,ij,rj->r", draws, matrix * across, draws) for matrix in (sums, np.outer(sizes, sizes))
    )
    return np.divide(total, pairs, out=np.full(len(draws), np.nan), where=pairs > 0)
