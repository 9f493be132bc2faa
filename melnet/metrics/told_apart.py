"""Classifier two-sample test (Lopez-Paz and Oquab, arXiv 1610.06545): can a classifier tell two sets apart?

An accuracy of 0.5 means that it cannot, 1 that it always can.
"""

import os
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # carries no types

from melnet.metrics.windows import MAX_WINDOWS, features, window_starts, windows

FOLDS = 5
MIN_WINDOWS = 10  # per side
MAX_PATCHES = 2000  # 300 trees on more would take longer than all else that is measured
REGULARISATION = 0.01  # C of the logistic regression: there are more features than independent windows
TREES = 300
MIN_SAMPLES_LEAF = 2


@dataclass(frozen=True)
class Accuracy:
    """Balanced accuracy of a classifier: the mean share of either set that it recognises in folds it has not seen."""

    mean: float
    spread: float
    """standard deviation over the folds"""


@dataclass(frozen=True)
class ToldApart:
    """How well classifiers tell two sets apart; None where a set is too small to say."""

    windows: Accuracy | None
    """a logistic regression on the features of long windows"""
    patches: Accuracy | None
    """trees on the values of short patches"""


def told_apart(
    a: Sequence[np.ndarray],
    b: Sequence[np.ndarray],
    *,
    window_frames: int,
    patch_frames: int,
    seed: int,
    groups_a: Sequence[Hashable] | None = None,
    groups_b: Sequence[Hashable] | None = None,
) -> ToldApart:
    """Tell two sets of spectrograms apart by windows, half overlapping, and by patches that do not overlap.

    Windows are drawn at random from the larger set until both are equally many, at most ``MAX_WINDOWS`` and
    ``MAX_PATCHES`` of each. Groups are kept together: a classifier is tested on recordings and samples of which it has
    seen nothing. A figure is None if a set has fewer than 2 groups or ``MIN_WINDOWS`` windows. The result depends on
    ``seed``, and not on the number of cores.

    Parameters
    ----------
    a, b
        Normalised log-mel (frames_i, bands).
    window_frames, patch_frames
        About one second and 0.2 seconds.
    groups_a, groups_b
        See :func:`melnet.metrics.windows.windows`.

    >>> rng = np.random.default_rng(0)
    >>> a, b = rng.normal(0, 1, (8, 60, 8)), rng.normal(0, 2, (8, 60, 8))
    >>> told_apart(a, b, window_frames=20, patch_frames=5, seed=0).windows
    Accuracy(mean=1.0, spread=0.0)
    """
    logistic = make_pipeline(
        StandardScaler(), LogisticRegression(C=REGULARISATION, class_weight="balanced", max_iter=300)
    )
    trees = ExtraTreesClassifier(
        TREES, min_samples_leaf=MIN_SAMPLES_LEAF, class_weight="balanced", random_state=seed, n_jobs=1
    )

    def accuracy(
        classifier: BaseEstimator, represent: Callable[[np.ndarray], np.ndarray], frames: int, hop: int, limit: int
    ) -> Accuracy | None:
        count = min(limit, *(len(window_starts(side, frames, hop)) for side in (a, b)))
        cut_a = windows(a, frames, hop, groups_a, limit=count, seed=seed)
        cut_b = windows(b, frames, hop, groups_b, limit=count, seed=seed)
        folds = min(FOLDS, len(np.unique(cut_a.group)), len(np.unique(cut_b.group)))
        if count < MIN_WINDOWS or folds < 2:
            return None
        x = np.concatenate([represent(cut_a.values), represent(cut_b.values)])
        group = np.concatenate([cut_a.group, cut_b.group + len(a)])
        return _cross_validated(classifier, x, np.repeat([0, 1], count), group, folds, seed)

    return ToldApart(
        accuracy(logistic, features, window_frames, max(1, window_frames // 2), MAX_WINDOWS),
        accuracy(trees, lambda patches: patches.reshape(len(patches), -1), patch_frames, patch_frames, MAX_PATCHES),
    )


def _cross_validated(
    classifier: BaseEstimator, x: np.ndarray, y: np.ndarray, group: np.ndarray, folds: int, seed: int
) -> Accuracy:
    """Accuracy over folds of whole groups. Both classes are in each fold, since they have as many groups or more."""

    def score(fold: tuple[np.ndarray, np.ndarray]) -> float:
        train, test = fold
        fitted = clone(classifier).fit(x[train], y[train])
        return float(balanced_accuracy_score(y[test], fitted.predict(x[test])))

    splits = StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(x, y, group)
    # A fold per core. Inside a fold one thread does the sums, whose order would depend on the number of threads.
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        scores = list(pool.map(score, splits))
    return Accuracy(float(np.mean(scores)), float(np.std(scores, ddof=1)))
