"""Regression of each element on some frames before it and the lower bands of its own frame."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.linalg import cholesky, solve_triangular

from melnet.baselines.band_mixture import BandMixture, Parameter, draw_rows
from melnet.baselines.previous_frame import RIDGE

FRAMES_BACK = 3
FRAMES_AT_ONCE = 4096  # whose contexts are held in memory: 32 MB for 256 bands
# The errors of a band are a mixture of so many Gaussians, fitted on so many frames. With five times as many the fit
# takes four times as long, and the likelihood of speech changes by 0.0001 nats.
COMPONENTS = 4
MIXTURE_FRAMES = 20_000


@dataclass(frozen=True)
class LinearAutoregression:
    """Linear regression of each element on three frames before it and the lower bands of its own frame.

    x_t,b = w_b · (1, x_t−3, x_t−2, x_t−1, x_t,<b) + e_t,b, where e is a mixture of Gaussians per band. This is MelNet's
    order of elements, so the densities multiply to one of whole slices. Frames before a slice count as zeros, the mean
    of normalised log-mel; the fit sees such beginnings as well.

    Parameters
    ----------
    coefficients
        w, float64 (bands, 1 + 4 · bands): a row per predicted band. Those of the band itself and of the bands above it
        are zero.
    error
        The density of e.

    >>> x = np.random.default_rng(0).standard_normal((4, 50, 2)).astype(np.float32)
    >>> LinearAutoregression.fit(x, min_sigma=0.02, max_frames=1000, seed=0).nll(x).shape
    (4, 50, 2)
    """

    coefficients: Parameter
    error: BandMixture

    @classmethod
    def fit(cls, x: np.ndarray, *, min_sigma: float, max_frames: int, seed: int) -> Self:
        """Fit by ridge regression on random slices, at most ``max_frames`` frames in all but at least one slice.

        ``x`` is normalised log-mel, (slices, frames, bands). The mixture is fitted to the errors of the regression by
        :meth:`BandMixture.fit`.
        """
        x = draw_rows(x, max(1, max_frames // x.shape[1]), seed)
        bands, columns = x.shape[-1], 1 + (FRAMES_BACK + 1) * x.shape[-1]
        gram = np.diag(np.r_[0, np.full(columns - 1, RIDGE)])  # the constant is not penalised
        for rows in _contexts(x):
            gram += rows.T @ rows
        # One Cholesky factor L solves the regressions of all bands: row j of L⁻¹, divided by its diagonal, takes from
        # column j its ridge regression on the columns before it.
        inverse = solve_triangular(cholesky(gram, lower=True), np.eye(columns), lower=True)[-bands:]
        coefficients = -inverse / np.diagonal(inverse, columns - bands)[:, None]
        coefficients[:, -bands:] = np.tril(coefficients[:, -bands:], -1)
        errors = _errors(x, coefficients)
        drawn = min(max_frames, MIXTURE_FRAMES)
        error = BandMixture.fit(errors, num_components=COMPONENTS, min_sigma=min_sigma, max_frames=drawn, seed=seed)
        return cls(coefficients, error)

    def nll(self, x: np.ndarray) -> np.ndarray:
        """−log p of each element in nats; ``x`` (slices, frames, bands), the result in the same shape as float64."""
        return self.error.nll(_errors(x, self.coefficients))


def _contexts(x: np.ndarray) -> Iterator[np.ndarray]:
    """For every frame of ``x`` in order, a row of 1, the frames before it and itself, float64 (rows, 1 + 4 · bands).

    ``x`` is (slices, frames, bands). Only the rows of some slices are made at once.
    """
    slices, frames, bands = x.shape
    for part in np.array_split(x, -(-slices * frames // FRAMES_AT_ONCE)):
        padded = np.pad(part, ((0, 0), (FRAMES_BACK, 0), (0, 0)))
        columns = [np.ones((*part.shape[:2], 1)), *(padded[:, i : i + frames] for i in range(FRAMES_BACK + 1))]
        yield np.concatenate(columns, axis=-1).reshape(-1, 1 + (FRAMES_BACK + 1) * bands)


def _errors(x: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """Differences of ``x`` from its linear prediction, float64 (slices, frames, bands)."""
    bands = x.shape[-1]
    return np.concatenate([rows[:, -bands:] - rows @ coefficients.T for rows in _contexts(x)]).reshape(x.shape)
