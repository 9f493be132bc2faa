"""Mean, standard deviation and range per band in one pass, from parts that are merged."""

from typing import NamedTuple, Self

import numpy as np

# Nats. Recordings have 2 to 4; a band that (nearly) never changes should not make much of the little it does.
MIN_STD = 0.1


class Moments(NamedTuple):
    """The range of each band, and sums from which its mean and variance follow; all float64."""

    frames: int
    mean: np.ndarray  # (bands,)
    squares: np.ndarray  # (bands,), sum of the squared deviations from the mean
    low: np.ndarray  # (bands,)
    high: np.ndarray  # (bands,)

    @classmethod
    def none(cls, bands: int) -> Self:
        """Moments of nothing yet, to merge others into."""
        return cls(0, np.zeros(bands), np.zeros(bands), np.full(bands, np.inf), np.full(bands, -np.inf))

    @classmethod
    def of(cls, frames: np.ndarray) -> Self:
        """Moments of the last axis, bands, over all others; ``frames`` (..., bands) is not empty."""
        values = frames.reshape(-1, frames.shape[-1]).astype(np.float64)
        mean = values.mean(axis=0)
        return cls(len(values), mean, np.square(values - mean).sum(axis=0), values.min(axis=0), values.max(axis=0))

    def merged(self, other: Self) -> Self:
        """Moments of both parts together, without cancellation (Chan, Golub and LeVeque 1979); one has frames."""
        frames = self.frames + other.frames
        delta = other.mean - self.mean
        mean = self.mean + delta * (other.frames / frames)
        squares = self.squares + other.squares + np.square(delta) * (self.frames * other.frames / frames)
        return type(self)(frames, mean, squares, np.minimum(self.low, other.low), np.maximum(self.high, other.high))

    @property
    def std(self) -> np.ndarray:
        """Standard deviation (bands,) of the population, at least :data:`MIN_STD`."""
        return np.maximum(np.sqrt(self.squares / self.frames), MIN_STD)
