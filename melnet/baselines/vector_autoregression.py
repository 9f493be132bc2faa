"""Noise with the covariances of neighbouring frames."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from melnet.baselines.previous_frame import on_previous_frame

BURN_IN = 200  # frames after which a sample has forgotten that it began with zeros


@dataclass(frozen=True)
class VectorAutoregression:
    """VAR(1) noise: x_t = c + A x_t−1 + e_t with e ~ N(0, Σ), all bands at once.

    Its samples have the mean, the covariance and the covariance with the previous frame of what it was fitted to, and
    no other structure.

    Parameters
    ----------
    coefficients
        A, float64 (bands, bands): a row per predicted band.
    intercept
        c, float64 (bands,).
    covariance
        Σ, float64 (bands, bands).

    >>> x = np.random.default_rng(0).standard_normal((4, 50, 2)).astype(np.float32)
    >>> noise = VectorAutoregression.fit(x, max_frames=1000, seed=0)
    >>> noise.sample((3, 10), np.random.default_rng(0)).shape
    (3, 10, 2)
    """

    coefficients: np.ndarray
    intercept: np.ndarray
    covariance: np.ndarray

    @classmethod
    def fit(cls, x: np.ndarray, *, max_frames: int, seed: int) -> Self:
        """Fit by ridge regression on at most ``max_frames`` random pairs of neighbouring frames.

        ``x`` is normalised log-mel, (slices, frames, bands). Of slices of a single frame it becomes white noise.
        """
        coefficients, intercept, errors = on_previous_frame(x, max_frames, seed)
        return cls(coefficients, intercept, errors.T @ errors / len(errors))

    def sample(self, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
        """Draw independent slices, ``shape`` being (slices, frames); float32 (slices, frames, bands).

        Values are not clipped to a range. The first BURN_IN frames are left out, so slices begin anywhere.
        """
        slices, frames = shape
        size = (BURN_IN + frames, slices)
        # The eigenvalues may be zero, as those of a silent band are; a Cholesky factor would not exist then.
        x = rng.multivariate_normal(self.intercept, self.covariance, size, method="eigh")
        for t in range(1, len(x)):
            x[t] += x[t - 1] @ self.coefficients.T
        return x[BURN_IN:].swapaxes(0, 1).astype(np.float32)
