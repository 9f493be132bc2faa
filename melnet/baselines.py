"""What a model of spectrograms must beat: densities that know nothing of a frame, or only the frame before.

Both are fitted on normalised log-mel frames and score each element in nats, on the same elements as MelNet. As a
density, not a probability, a negative log-likelihood may be below zero. All standard deviations are bounded below by
``min_sigma``, MelNet's own bound: without one, the values on the log floor, which are all equal, would be worth any
number of nats.
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

# The gain in nats per element below which EM stops; ten times less costs five times the time for 0.003 nats.
EM_TOLERANCE = 1e-4
EM_ITERATIONS = 200
# Ridge penalty on standardised bands: too weak to matter on many frames, enough to settle bands that never move.
RIDGE = 1.0


@dataclass(frozen=True)
class BandMixture:
    """Each band on its own, whatever the time: a mixture of K Gaussians, p(x) = Σ_k π_k N(x; μ_k, σ_k²).

    Parameters
    ----------
    weights, means, sigmas
        float64 (bands, K). A band with fewer components is filled up with components of weight 0.
    """

    weights: np.ndarray
    means: np.ndarray
    sigmas: np.ndarray

    @classmethod
    def fit(cls, x: np.ndarray, *, mixture: int, min_sigma: float, max_frames: int, seed: int) -> Self:
        """Fit by expectation-maximisation from a k-means start, on at most ``max_frames`` frames drawn at random.

        ``x`` is normalised log-mel, (slices, frames, bands). The variance of a component is that of its values plus
        ``min_sigma``², so that no σ is below ``min_sigma``.
        """
        frames = _draw(x.reshape(-1, x.shape[-1]), max_frames, seed).astype(np.float64)
        with warnings.catch_warnings(), ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            # A fit cut short, or with two components alike, is a valid density and is scored as it is.
            warnings.simplefilter("ignore", ConvergenceWarning)
            bands = list(pool.map(lambda band: _fit_band(band, mixture, min_sigma, seed), frames.T))
        weights, means, sigmas = (np.stack(parameter) for parameter in zip(*bands, strict=True))
        return cls(weights, means, sigmas)

    def nll(self, x: np.ndarray) -> np.ndarray:
        """−log p of each element in nats; ``x`` (slices, frames, bands), the result in the same shape as float64."""
        nats = np.empty(x.shape)
        for band in range(x.shape[-1]):  # one by one: all at once would hold K times the memory of x
            components = gaussian_nll(x[..., band, None], self.means[band], self.sigmas[band])
            nats[..., band] = -logsumexp(-components, b=self.weights[band], axis=-1)
        return nats

    def sample(self, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
        """Draw every element independently; ``shape`` is (slices, frames), the result float32 (…, bands)."""
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
    """Each band given the whole frame before it: x_t,b ~ N(c_b + A_b · x_t−1, σ_b²).

    The first frame of a slice, which has none before it, is scored by the band's own mean and standard deviation,
    x_0,b ~ N(m_b, s_b²), so that this baseline scores the same elements as every other model.

    Parameters
    ----------
    coefficients
        A, float64 (bands, bands): a row per predicted band.
    intercept, sigma
        c and σ, float64 (bands,).
    first_mean, first_sigma
        m and s, float64 (bands,).
    """

    coefficients: np.ndarray
    intercept: np.ndarray
    sigma: np.ndarray
    first_mean: np.ndarray
    first_sigma: np.ndarray

    @classmethod
    def fit(cls, x: np.ndarray, *, min_sigma: float, max_frames: int, seed: int) -> Self:
        """Fit by ridge regression on at most ``max_frames`` pairs of neighbouring frames drawn at random.

        ``x`` is normalised log-mel, (slices, frames, bands). σ is the standard deviation of the residual, at least
        ``min_sigma``. Slices of a single frame hold no pair: A is then zero and σ the band's own.
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


def gaussian_nll(x: np.ndarray, mean: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """−log N(x; μ, σ²) = ½((x − μ)/σ)² + log σ + ½ log 2π, in nats; the arguments are broadcast."""
    return 0.5 * ((x - mean) / sigma) ** 2 + np.log(sigma) + 0.5 * math.log(2 * math.pi)


def floored(x: np.ndarray, floor: np.ndarray, tolerance: float = 1e-4) -> np.ndarray:
    """Which elements lie on the log floor (or below it, as only generated values can); bool, the shape of ``x``.

    ``x`` is normalised log-mel, (slices, frames, bands), and ``floor`` (bands,) is log(mel floor), normalised alike.
    ``tolerance`` is in normalised units and covers the rounding of float32.
    """
    return x <= floor + tolerance


def _draw(rows: np.ndarray, count: int, seed: int) -> np.ndarray:
    """At most ``count`` of the rows, without repetition, in their order."""
    if len(rows) <= count:
        return rows
    return rows[np.sort(np.random.default_rng(seed).choice(len(rows), count, replace=False))]


def _fit_band(
    values: np.ndarray, mixture: int, min_sigma: float, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights, means and standard deviations, each (mixture,), of one band's values (frames,)."""
    # A band that is all silence has one value, and there is no start for more components than values. Values closer
    # than min_sigma count as one, since no component could tell them apart.
    distinct = len(np.unique(np.round(values / min_sigma)))
    fitted = GaussianMixture(
        min(mixture, distinct),
        covariance_type="spherical",
        reg_covar=min_sigma**2,
        tol=EM_TOLERANCE,
        max_iter=EM_ITERATIONS,
        random_state=seed,
    ).fit(values[:, None])
    missing = mixture - fitted.n_components
    return (
        np.pad(fitted.weights_, (0, missing)),
        np.pad(fitted.means_[:, 0], (0, missing)),
        np.pad(np.sqrt(fitted.covariances_), (0, missing), constant_values=min_sigma),
    )
