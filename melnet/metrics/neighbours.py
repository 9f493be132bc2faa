"""Nearest neighbours: do samples lie among the recordings, are all recordings covered, is a sample learnt by heart?"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from sklearn.metrics import pairwise_distances
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # carries no types

from melnet.metrics.windows import Windows, standardised_features, window_starts, window_values

NEIGHBOURS = 5
MAX_COMPARED = 256  # windows of either side whose nearest train window is looked for
STILL = 0.1  # standard deviations of a band
BLOCK_BYTES = 32 << 20  # of train windows, for each core
LOW_PERCENTILE = 5


@dataclass(frozen=True)
class PrecisionRecall:
    """Shares from 0 to 1. A ball reaches from a window to the fifth nearest of its own set."""

    precision: float
    """of the generated windows, those in the ball of a reference window"""
    recall: float
    """of the reference windows, those in the ball of a generated window"""
    coverage: float
    """of the reference windows, those whose ball holds a generated window"""


def precision_recall(generated: Windows, reference: Windows, *, seed: int) -> PrecisionRecall | None:
    """Precision and recall (Kynkäänniemi et al., arXiv 1904.06991) and coverage (Naeem et al., arXiv 2002.09797).

    Distances are Euclidean, between features standardised by the reference. The larger set is drawn from until both are
    equally large. The neighbours that give a ball its radius are of other groups, since windows of one recording
    resemble each other.

    Returns None if a window has fewer than 5 others outside its group.

    >>> x = np.random.default_rng(0).normal(size=(100, 8, 8))
    >>> equal = Windows(x, np.arange(100))
    >>> precision_recall(equal, equal, seed=0)
    PrecisionRecall(precision=1.0, recall=1.0, coverage=1.0)
    """
    count = min(len(generated.group), len(reference.group))
    rng = np.random.default_rng(seed)
    generated, reference = (
        Windows(side.values[kept], side.group[kept])
        for side in (generated, reference)
        for kept in [np.sort(rng.permutation(len(side.group))[:count])]
    )
    if any(count - np.bincount(side.group).max(initial=0) < NEIGHBOURS for side in (generated, reference)):
        return None
    x, y = standardised_features(generated, reference)
    with threadpool_limits(1, "blas"):  # the number of threads can change the last bit
        between = pairwise_distances(x, y)
        radius_x, radius_y = _radii(x, generated.group), _radii(y, reference.group)
    return PrecisionRecall(
        precision=float((between <= radius_y).any(axis=1).mean()),
        recall=float((between <= radius_x[:, None]).any(axis=0).mean()),
        coverage=float((between.min(axis=0) <= radius_y).mean()),
    )


def _radii(x: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Distance of each row of x to the fifth nearest of another group."""
    distances = pairwise_distances(x)
    distances[group[:, None] == group] = np.inf
    return np.partition(distances, NEIGHBOURS - 1, axis=1)[:, NEIGHBOURS - 1]


@dataclass(frozen=True)
class NearestPair:
    """A generated window and the train window that is nearest to it."""

    generated: int
    """index of the sequence"""
    generated_frame: int
    """first frame in it"""
    train: int
    train_frame: int
    distance: float


@dataclass(frozen=True)
class Memorised:
    """How near generated windows are to the train split, relative to test windows; far below 1: learnt by heart.

    Blurred samples are near to everything, so a ratio somewhat below 1 is no proof.
    """

    ratio: float | None
    """median distance of generated windows by that of test windows; None if the latter is 0"""
    ratio_low: float | None
    """the same for the 5th percentiles, where a few windows that are learnt by heart show"""
    nearest: NearestPair
    """the pair of least distance"""


def memorised(
    generated: Sequence[np.ndarray], test: Sequence[np.ndarray], train: Sequence[np.ndarray], frames: int
) -> Memorised | None:
    """Distances of generated and of test windows to the nearest train window at any offset.

    The distance is the root mean square of the differences of the elements. Windows in which nothing changes, as in
    rests, do not count: the root mean square of the differences from their mean frame is below ``STILL``. At most
    ``MAX_COMPARED`` windows of either side are compared, evenly spaced.

    Returns None if the generated, the test or the train sequences have no window in which something changes.

    Parameters
    ----------
    generated, test, train
        Normalised log-mel (frames_i, bands).
    frames
        Length of a window, about one second.

    >>> rng = np.random.default_rng(0)
    >>> train, test, new = (list(rng.normal(size=(3, 100, 8))) for _ in range(3))
    >>> memorised([*new, train[1][17:80]], test, train, frames=20).nearest
    NearestPair(generated=3, generated_frame=0, train=1, train_frame=17, distance=0.0)
    """
    starts, test_starts = _moving(generated, frames), _moving(test, frames)
    if len(starts) == 0 or len(test_starts) == 0:
        return None
    queries = np.concatenate([window_values(generated, starts, frames), window_values(test, test_starts, frames)])
    nearest = _nearest(queries, train, frames)
    if nearest is None:
        return None
    # Exact: those by matrix products lose digits where windows are nearly equal.
    found = window_values(train, nearest, frames)
    distances = np.sqrt(np.square(queries.astype(np.float64) - found).mean((1, 2)))
    own, others = np.split(distances, [len(starts)])
    best = int(own.argmin())
    (index, first), (train_index, train_first) = starts[best].tolist(), nearest[best].tolist()
    return Memorised(
        ratio=_ratio(own, others, 50),
        ratio_low=_ratio(own, others, LOW_PERCENTILE),
        nearest=NearestPair(index, first, train_index, train_first, float(own[best])),
    )


def _ratio(own: np.ndarray, others: np.ndarray, percentile: float) -> float | None:
    reference = float(np.percentile(others, percentile))
    return float(np.percentile(own, percentile)) / reference if reference > 0 else None


def _still(values: np.ndarray) -> np.ndarray:
    """Whether nothing changes in each window (n, frames, bands); (n,) bool."""
    return values.var(axis=1).mean(axis=1) < STILL**2


def _moving(sequences: Sequence[np.ndarray], frames: int) -> np.ndarray:
    """Starts of at most ``MAX_COMPARED`` windows in which something changes, evenly spaced; (n, 2) int."""
    starts = window_starts(sequences, frames, max(1, frames // 2))
    if len(starts) == 0:
        return starts
    pieces = np.array_split(starts, len(starts) // MAX_COMPARED + 1)  # so that not all windows are in memory at once
    moving = np.concatenate([piece[~_still(window_values(sequences, piece, frames))] for piece in pieces])
    kept = np.linspace(0, len(moving) - 1, min(len(moving), MAX_COMPARED)).round().astype(int)
    return moving[kept]


def _nearest(queries: np.ndarray, train: Sequence[np.ndarray], frames: int) -> np.ndarray | None:
    """Start of the train window nearest to each query (n, frames, bands); (n, 2) int, or None if there is none."""
    flat = queries.reshape(len(queries), -1)
    step = max(1, BLOCK_BYTES // flat[0].nbytes)

    def search(block: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Squared distances of the nearest windows that begin in a block, less the squares of the queries."""
        index, first = block
        part = train[index][first : first + step + frames - 1].astype(np.float32)
        values = np.ascontiguousarray(sliding_window_view(part, frames, axis=0).swapaxes(1, 2))
        rows = values.reshape(len(values), -1)
        distances = np.einsum("ij,ij->i", rows, rows)[:, None] - 2 * (rows @ flat.T)
        distances[_still(values)] = np.inf
        nearest = distances.argmin(axis=0)
        return distances[nearest, np.arange(len(flat))], np.stack([np.full_like(nearest, index), first + nearest], 1)

    blocks = [(i, first) for i, x in enumerate(train) for first in range(0, len(x) - frames + 1, step)]
    least, starts = np.full(len(flat), np.inf), np.full((len(flat), 2), -1)
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for distances, found in pool.map(search, blocks):
            nearer = distances < least
            least[nearer], starts[nearer] = distances[nearer], found[nearer]
    return starts if np.isfinite(least).all() else None
