import numpy as np
import pytest


@pytest.fixture
def moving(rng):
    """Slices (20, 30, 3) of bands that follow each other's past: x_t = A x_t-1 + noise."""
    slices, frames, bands = 20, 30, 3
    dynamics = 0.4 * rng.normal(size=(bands, bands)) / np.sqrt(bands) + 0.5 * np.eye(bands)
    x = rng.normal(size=(slices, frames, bands))
    for t in range(1, frames):
        x[:, t] = x[:, t - 1] @ dynamics.T + 0.3 * x[:, t]
    return x.astype(np.float32)
