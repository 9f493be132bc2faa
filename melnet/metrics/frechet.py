"""The Fréchet distance between two sets of frames."""

from typing import NamedTuple

import numpy as np


class Gaussian(NamedTuple):
    """Mean (dims,) and covariance (dims, dims) of a set, float64."""

    mean: np.ndarray
    covariance: np.ndarray


class FrameStatistics:
    """Mean and covariance of frames, accumulated over batches.

    A frame counts as 2 · bands values: its log-mel, and its difference from the previous frame, without which the order
    of the frames would not matter. The first frame of a slice is left out, since it has no previous one.

    >>> statistics = FrameStatistics(bands=2)
    >>> statistics.update(np.random.default_rng(0).standard_normal((4, 50, 2)))
    >>> statistics.gaussian().covariance.shape
    (4, 4)
    """

    def __init__(self, bands: int) -> None:
        self._count = 0
        self._sum = np.zeros(2 * bands)
        self._products = np.zeros((2 * bands, 2 * bands))

    def update(self, x: np.ndarray) -> None:
        """Add slices of normalised log-mel, (slices, frames, bands).

        Values that are not normalised would lose precision, since their mean is large against their deviation.
        """
        x = x.astype(np.float64)
        frames = np.concatenate([x[:, 1:], np.diff(x, axis=1)], axis=-1).reshape(-1, len(self._sum))
        self._count += len(frames)
        self._sum += frames.sum(axis=0)
        self._products += frames.T @ frames

    def gaussian(self) -> Gaussian:
        """The Gaussian of greatest likelihood for all frames so far.

        Raises
        ------
        ValueError
            There was no slice of at least two frames.
        """
        if self._count == 0:
            raise ValueError("no statistics of frames: there was no slice of at least 2 frames")
        mean = self._sum / self._count
        return Gaussian(mean, self._products / self._count - np.outer(mean, mean))


def frame_statistics(x: np.ndarray) -> Gaussian:
    """:class:`FrameStatistics` of a single batch of normalised log-mel, (slices, frames, bands).

    >>> frame_statistics(np.zeros((4, 50, 2))).mean.tolist()
    [0.0, 0.0, 0.0, 0.0]
    """
    statistics = FrameStatistics(x.shape[-1])
    statistics.update(x)
    return statistics.gaussian()


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """Squared Fréchet distance between two Gaussians: d² = |μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2(Σ₁Σ₂)^½).

    It is squared, as in the Fréchet inception distance (arXiv 1706.08500). For normalised log-mel the unit is a band's
    variance in the train split.

    >>> frechet_distance(Gaussian(np.zeros(2), np.eye(2)), Gaussian(np.ones(2), np.eye(2)))
    2.0
    """
    # tr (Σ₁Σ₂)^½ is the sum of the singular values of Σ₁^½ Σ₂^½. The root of the product itself would lose precision
    # where a band hardly changes and a covariance is singular.
    cross = np.linalg.svd(_root(a.covariance) @ _root(b.covariance), compute_uv=False).sum()
    means = np.sum((a.mean - b.mean) ** 2)
    return max(0.0, float(means + np.trace(a.covariance) + np.trace(b.covariance) - 2 * cross))


def _root(covariance: np.ndarray) -> np.ndarray:
    """Symmetric square root of a covariance. Eigenvalues that rounding made negative count as zero."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
