"""Regression of a frame on the previous one."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from sklearn.linear_model import Ridge

from melnet.baselines.band_mixture import Parameter, draw_rows, gaussian_nll

# Ridge penalty on standardised bands: negligible against many frames, and keeps constant bands from being singular.
RIDGE = 1.0


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

    coefficients: Parameter
    intercept: Parameter
    sigma: Parameter
    first_mean: Parameter
    first_sigma: Parameter

    @classmethod
    def fit(cls, x: np.ndarray, *, min_sigma: float, max_frames: int, seed: int) -> Self:
        """Fit by ridge regression on at most ``max_frames`` random pairs of neighbouring frames.

        ``x`` is normalised log-mel, (slices, frames, bands). σ is the standard deviation of the residual, at least
        ``min_sigma``. Slices of a single frame have no pairs: then A is zero and σ the band's own deviation.
        """
        coefficients, intercept, errors = on_previous_frame(x, max_frames, seed)
        sigma = np.maximum(np.sqrt(np.mean(errors**2, axis=0)), min_sigma)
        deviation = np.maximum(x.std(axis=(0, 1), dtype=np.float64), min_sigma)
        return cls(coefficients, intercept, sigma, x.mean(axis=(0, 1), dtype=np.float64), deviation)

    def nll(self, x: np.ndarray) -> np.ndarray:
        """−log p of each element in nats; ``x`` (slices, frames, bands), the result in the same shape as float64."""
        first = gaussian_nll(x[:, :1], self.first_mean, self.first_sigma)
        predicted = x[:, :-1] @ self.coefficients.T + self.intercept
        return np.concatenate([first, gaussian_nll(x[:, 1:], predicted, self.sigma)], axis=1)


def on_previous_frame(x: np.ndarray, max_frames: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ridge regression of frames on the previous ones: coefficients (bands, bands), intercept (bands,), and errors.

    The errors, (pairs, bands), are those of the pairs of frames that were drawn. Slices of a single frame have no
    pairs: then the coefficients are zero, and the errors are the deviations of the frames from their mean.
    """
    slices, frames, bands = x.shape
    if frames < 2:
        mean = x.mean(axis=(0, 1), dtype=np.float64)
        return np.zeros((bands, bands)), mean, x[:, 0] - mean
    drawn, times = np.divmod(draw_rows(np.arange(slices * (frames - 1)), max_frames, seed), frames - 1)
    previous, current = x[drawn, times].astype(np.float64), x[drawn, times + 1].astype(np.float64)
    regression = Ridge(alpha=RIDGE).fit(previous, current)
    return regression.coef_, regression.intercept_, current - regression.predict(previous)
