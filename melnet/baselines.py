"""Simple densities that a model of spectrograms must beat: one without any context, one that knows the previous frame.

Both are fitted on normalised log-mel frames and score the same elements as MelNet, in nats. The negative logarithm of a
density may be below zero. All standard deviations are bounded below by ``min_sigma``, as MelNet's are: values on the
log floor are all equal, and an ever narrower Gaussian on them would score any number of nats.
"""

import math
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from scipy.special import logsumexp
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Ridge
from sklearn.mixture import GaussianMixture

# EM stops when it gains less than this many nats per element. A tenth of it takes five times as long for 0.003 nats.
EM_TOLERANCE = 1e-4
EM_ITERATIONS = 200
# Ridge penalty on standardised bands: negligible against many frames, and keeps constant bands from being singular.
RIDGE = 1.0


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

    weights: np.ndarray
    means: np.ndarray
    sigmas: np.ndarray

    @classmethod
    def fit(cls, x: np.ndarray, *, num_components: int, min_sigma: float, max_frames: int, seed: int) -> Self:
        """Fit by expectation-maximisation from a k-means start, on at most ``max_frames`` random frames.

        ``x`` is normalised log-mel, (slices, frames, bands). ``min_sigma``² is added to the variance of every
        component, so that no σ is below ``min_sigma``.
        """
        frames = _draw(x.reshape(-1, x.shape[-1]), max_frames, seed).astype(np.float64)
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

    def to_dict(self) -> dict[str, Any]:
        """The parameters as lists, for JSON."""
        return {"weights": self.weights.tolist(), "means": self.means.tolist(), "sigmas": self.sigmas.tolist()}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`."""
        return cls(*(np.array(content[name], np.float64) for name in ("weights", "means", "sigmas")))


@dataclass(frozen=True)
class PreviousFrame:
    """Linear regression of each band on the whole previous frame: x_t,b ~ N(c_b + A_b · x_t−1, σ_b²).

    The first frame of a slice has no previous one. It is scored by the band's own mean and standard deviation,
    x_0,b ~ N(m_b, s_b²), so that this baseline scores the same elements as every other model.

    Parameters
    ----------
    coefficients
        A, float64 (bands, bands): a row per predicted band.
    intercept, sigma
        c and σ, float64 (bands,).
    first_mean, first_sigma
        m and s, float64 (bands,).

    >>> x = np.random.default_rng(0).standard_normal((4, 50, 2)).astype(np.float32)
    >>> PreviousFrame.fit(x, min_sigma=0.02, max_frames=1000, seed=0).nll(x).shape
    (4, 50, 2)
    """

    coefficients: np.ndarray
    intercept: np.ndarray
    sigma: np.ndarray
    first_mean: np.ndarray
    first_sigma: np.ndarray

    @classmethod
    def fit(cls, x: np.ndarray, *, min_sigma: float, max_frames: int, seed: int) -> Self:
        """Fit by ridge regression on at most ``max_frames`` random pairs of neighbouring frames.

        ``x`` is normalised log-mel, (slices, frames, bands). σ is the standard deviation of the residual, at least
        ``min_sigma``. Slices of a single frame have no pairs: then A is zero and σ the band's own deviation.
        """
        bands = x.shape[-1]
        mean = x.mean(axis=(0, 1), dtype=np.float64)
        deviation = np.maximum(x.std(axis=(0, 1), dtype=np.float64), min_sigma)
        if x.shape[1] < 2:
            return cls(np.zeros((bands, bands)), mean, deviation, mean, deviation)
        pairs = _draw(np.arange(x.shape[0] * (x.shape[1] - 1)), max_frames, seed)
        slices, times = np.divmod(pairs, x.shape[1] - 1)
        previous = x[slices, times].astype(np.float64)  # (pairs, bands)
        current = x[slices, times + 1].astype(np.float64)
        regression = Ridge(alpha=RIDGE).fit(previous, current)
        residual = np.sqrt(np.mean((current - regression.predict(previous)) ** 2, axis=0))
        return cls(regression.coef_, regression.intercept_, np.maximum(residual, min_sigma), mean, deviation)

    def nll(self, x: np.ndarray) -> np.ndarray:
        """−log p of each element in nats; ``x`` (slices, frames, bands), the result in the same shape as float64."""
        first = gaussian_nll(x[:, :1], self.first_mean, self.first_sigma)
        predicted = x[:, :-1] @ self.coefficients.T + self.intercept
        return np.concatenate([first, gaussian_nll(x[:, 1:], predicted, self.sigma)], axis=1)

    def to_dict(self) -> dict[str, Any]:
        """The parameters as lists, for JSON."""
        return {name: value.tolist() for name, value in vars(self).items()}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`."""
        return cls(**{name: np.array(value, np.float64) for name, value in content.items()})


@dataclass(frozen=True)
class Baselines:
    """Both baselines, as ``models/baselines.json`` holds them."""

    band: BandMixture
    previous_frame: PreviousFrame

    def to_dict(self) -> dict[str, Any]:
        """The parameters as lists, for JSON."""
        return {"band": self.band.to_dict(), "previous_frame": self.previous_frame.to_dict()}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`."""
        return cls(BandMixture.from_dict(content["band"]), PreviousFrame.from_dict(content["previous_frame"]))


def gaussian_nll(x: np.ndarray, mean: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """−log N(x; μ, σ²) = ½((x − μ)/σ)² + log σ + ½ log 2π, in nats; the arguments are broadcast.

    >>> gaussian_nll(np.zeros(1), np.zeros(1), np.ones(1)).round(4).tolist()
    [0.9189]
    """
    return 0.5 * ((x - mean) / sigma) ** 2 + np.log(sigma) + 0.5 * math.log(2 * math.pi)


def floored(x: np.ndarray, floor: np.ndarray, tolerance: float = 1e-4) -> np.ndarray:
    """Elements on the log floor, or below it, as only generated values can be; bool, the shape of ``x``.

    ``x`` is normalised log-mel, (slices, frames, bands), and ``floor`` (bands,) is the log floor, normalised alike.
    ``tolerance`` is in normalised units and covers the rounding of float32.

    >>> floored(np.array([[[-2.0, 0.5]]]), floor=np.array([-2.0, -2.0])).tolist()
    [[[True, False]]]
    """
    return x <= floor + tolerance


def _draw(rows: np.ndarray, count: int, seed: int) -> np.ndarray:
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
