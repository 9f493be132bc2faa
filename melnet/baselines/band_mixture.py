"""A mixture of Gaussians per band, without any context."""

import math
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Self, TypeAlias

import numpy as np
from pydantic import PlainSerializer, PlainValidator
from scipy.special import logsumexp
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

# EM stops when it gains less than this many nats per element. A tenth of it takes five times as long for 0.003 nats.
EM_TOLERANCE = 1e-4
EM_ITERATIONS = 200


def _parameter(values: list[float]) -> np.ndarray:
    return np.array(values, np.float64)


Parameter: TypeAlias = Annotated[np.ndarray, PlainValidator(_parameter), PlainSerializer(np.ndarray.tolist)]
"""float64, a list in JSON"""


@dataclass(frozen=True)
class BandMixture:
    """Independent mixture of K Gaussians per band, without any context: p(x) = Σ_k π_k N(x; μ_k, σ_k²).

    Parameters
    ----------
    weights, means, sigmas
        float64 (bands, K). A band with fewer components is padded with components of weight 0.

    >>> x = np.random.default_rng(0).standard_normal((4, 50, 2)).astype(np.float32)
    >>> band = BandMixture.fit(x, num_components=2, min_sigma=0.02, max_frames=1000, seed=0)
    >>> band.nll(x).shape, band.sample((3, 10), np.random.default_rng(0)).shape
    ((4, 50, 2), (3, 10, 2))
    """

    weights: Parameter
    means: Parameter
    sigmas: Parameter

    @classmethod
    def fit(cls, x: np.ndarray, *, num_components: int, min_sigma: float, max_frames: int, seed: int) -> Self:
        """Fit by expectation-maximisation from a k-means start, on at most ``max_frames`` random frames.

        ``x`` is normalised log-mel, (slices, frames, bands). ``min_sigma``² is added to the variance of every
        component, so that no σ is below ``min_sigma``.
        """
        frames = draw_rows(x.reshape(-1, x.shape[-1]), max_frames, seed).astype(np.float64)
        with warnings.catch_warnings(), ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            # A fit that has not converged, or with two equal components, is a valid density all the same.
            warnings.simplefilter("ignore", ConvergenceWarning)
            bands = list(pool.map(lambda band: _fit_band(band, num_components, min_sigma, seed), frames.T))
        weights, means, sigmas = (np.stack(parameter) for parameter in zip(*bands, strict=True))
        return cls(weights, means, sigmas)

    def nll(self, x: np.ndarray) -> np.ndarray:
        """−log p of each element in nats; ``x`` (slices, frames, bands), the result in the same shape as float64."""
        nats = np.empty(x.shape)
        for band in range(x.shape[-1]):  # one by one, since all at once would take K times the memory of x
            components = gaussian_nll(x[..., band, None], self.means[band], self.sigmas[band])
            nats[..., band] = -logsumexp(-components, b=self.weights[band], axis=-1)
        return nats

    def sample(self, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
        """Draw every element independently; ``shape`` is (slices, frames); float32 (slices, frames, bands)."""
        x = np.empty((*shape, len(self.weights)), np.float32)
        for band, (weights, means, sigmas) in enumerate(zip(self.weights, self.means, self.sigmas, strict=True)):
            component = rng.choice(len(weights), size=shape, p=weights)
            x[..., band] = rng.normal(means[component], sigmas[component])
        return x


def gaussian_nll(x: np.ndarray, mean: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """−log N(x; μ, σ²) = ½((x − μ)/σ)² + log σ + ½ log 2π, in nats; the arguments are broadcast.

    >>> gaussian_nll(np.zeros(1), np.zeros(1), np.ones(1)).round(4).tolist()
    [0.9189]
    """
    return 0.5 * ((x - mean) / sigma) ** 2 + np.log(sigma) + 0.5 * math.log(2 * math.pi)


def draw_rows(rows: np.ndarray, count: int, seed: int) -> np.ndarray:
    """At most ``count`` random rows, without repetition, in their order."""
    if len(rows) <= count:
        return rows
    return rows[np.sort(np.random.default_rng(seed).choice(len(rows), count, replace=False))]


def _fit_band(
    values: np.ndarray, num_components: int, min_sigma: float, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights, means and standard deviations, each (num_components,), of one band's values (frames,)."""
    # K-means needs as many distinct values as components, and a silent band has only one. Values closer than min_sigma
    # count as equal, since no component could separate them.
    distinct = len(np.unique(np.round(values / min_sigma)))
    fitted = GaussianMixture(
        min(num_components, distinct),
        covariance_type="spherical",
        reg_covar=min_sigma**2,
        tol=EM_TOLERANCE,
        max_iter=EM_ITERATIONS,
        random_state=seed,
    ).fit(values[:, None])
    missing = num_components - fitted.n_components
    return (
        np.pad(fitted.weights_, (0, missing)),
        np.pad(fitted.means_[:, 0], (0, missing)),
        np.pad(np.sqrt(fitted.covariances_), (0, missing), constant_values=min_sigma),
    )
