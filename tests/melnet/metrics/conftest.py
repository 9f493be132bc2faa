import numpy as np
import pytest

BANDS = 12


def melodies(rng, count, frames=120, bands=BANDS, spread=0.0):
    """Spectrograms of held notes whose ripple over the bands is their pitch; each differs by a profile of its bands."""
    found = []
    for _ in range(count):
        pitch = np.repeat(rng.uniform(0.1, 0.4, frames // 15 + 1), 15)[:frames, None]
        level = np.repeat(rng.uniform(0.2, 1.5, frames // 15 + 1), 15)[:frames, None]
        x = level * np.cos(2 * np.pi * pitch * np.arange(bands)) + 0.2 * rng.standard_normal((frames, bands))
        found.append((x + spread * rng.standard_normal(bands)).astype(np.float32))
    return found


def linear_noise(rng, sequences, count, frames=120):
    """Draws of the linear-Gaussian process x_t = A x_{t-1} + e with the covariances of the sequences: VAR(1)."""
    before, after = np.concatenate([x[:-1] for x in sequences]), np.concatenate([x[1:] for x in sequences])
    matrix = np.linalg.lstsq(before, after, rcond=None)[0]
    root = np.linalg.cholesky(np.cov((after - before @ matrix).T))
    x = before[rng.integers(len(before), size=count)]
    found = [x]
    for _ in range(frames - 1):
        found.append(found[-1] @ matrix + rng.standard_normal(x.shape) @ root.T)
    return list(np.stack(found, axis=1).astype(np.float32))


@pytest.fixture
def rng():
    return np.random.default_rng(0)
