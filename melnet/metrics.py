"""Numbers for how well spectrograms are modelled: mean likelihoods and the distance between two sets."""

from typing import NamedTuple

import numpy as np


class MeanNll:
    """Mean negative log-likelihoods in nats per element of any number of batches, of which none is kept.

    Each is given over all elements and over those above the log floor. Silence lies on the floor, is all alike and is
    cheap to predict: the second figure is the one that says how well sound is modelled.
    """

    def __init__(self) -> None:
        self._elements = 0
        self._floored = 0
        self._sums: dict[str, np.ndarray] = {}

    def update(self, floored: np.ndarray, nll: dict[str, np.ndarray]) -> None:
        """Add a batch.

        Parameters
        ----------
        floored
            Which elements lie on the log floor (:func:`melnet.baselines.floored`), bool of any shape.
        nll
            −log p of each element in nats, in the same shape, by the name of its model.
        """
        self._elements += floored.size
        self._floored += int(floored.sum())
        for name, nats in nll.items():
            sums = np.array([nats.sum(dtype=np.float64), nats[~floored].sum(dtype=np.float64)])
            self._sums[name] = self._sums.get(name, 0) + sums

    def summary(self) -> dict[str, float]:
        """``<name>`` and ``<name>_above_floor`` for each model, the latter only if there is such an element.

        ``floored`` is the share of elements on the floor, from 0 to 1.
        """
        above = self._elements - self._floored
        means = {"floored": self._floored / self._elements}
        for name, (everything, sound) in self._sums.items():
            means[name] = float(everything / self._elements)
            if above:
                means[f"{name}_above_floor"] = float(sound / above)
        return means


class Gaussian(NamedTuple):
    """Mean (dims,) and covariance (dims, dims) of a set, float64."""

    mean: np.ndarray
    covariance: np.ndarray


class FrameStatistics:
    """Mean and covariance of the frames of any number of batches, of which none is kept.

    A frame counts as 2 · bands values: its log-mel, and its difference to the frame before it. The second half makes
    movement in time count; without it, frames in any order would be as good as the right one. The first frame of a
    slice has no difference and is left out.
    """

    def __init__(self, bands: int) -> None:
        self._count = 0
        self._sum = np.zeros(2 * bands)
        self._products = np.zeros((2 * bands, 2 * bands))

    def update(self, x: np.ndarray) -> None:
        """Add the slices of ``x``, (slices, frames, bands) normalised log-mel.

        Sums of products lose digits where the mean is large against the deviation; normalised values are safe.
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
            When there was no slice of at least two frames.
        """
        if self._count == 0:
            raise ValueError("no statistics of frames: there was no slice of at least 2 frames")
        mean = self._sum / self._count
        return Gaussian(mean, self._products / self._count - np.outer(mean, mean))


def frame_statistics(x: np.ndarray) -> Gaussian:
    """:class:`FrameStatistics` of a single batch, (slices, frames, bands) normalised log-mel."""
    statistics = FrameStatistics(x.shape[-1])
    statistics.update(x)
    return statistics.gaussian()


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """Fréchet distance between two sets, each seen as one Gaussian.

    d² = |μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2(Σ₁Σ₂)^½), as in the Fréchet inception distance (arXiv 1706.08500). It is given
    squared, as is usual there; the unit is a band's variance in the train split, since the values are normalised.
    """
    # tr (Σ₁Σ₂)^½ is the sum of the singular values of Σ₁^½ Σ₂^½: no root of a product, so that no digits are lost where
    # a band hardly moves and a covariance is singular.
    cross = np.linalg.svd(_root(a.covariance) @ _root(b.covariance), compute_uv=False).sum()
    means = np.sum((a.mean - b.mean) ** 2)
    return max(0.0, float(means + np.trace(a.covariance) + np.trace(b.covariance) - 2 * cross))


def _root(covariance: np.ndarray) -> np.ndarray:
    """Symmetric square root of a covariance; eigenvalues that rounding made negative count as zero."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
