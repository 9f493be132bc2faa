"""How far a generated set is from the recordings: Fréchet distances, of all samples and singer by singer."""

from typing import Any

import numpy as np

from melnet.baselines import BandMixture
from melnet.dataset import batches
from melnet.metrics import FrameStatistics, Gaussian, frame_statistics, frechet_distance
from melnet.saved import Description
from melnet.shards import Shards


def distances(
    description: Description, sampled: np.ndarray, singers: np.ndarray, band: BandMixture, train: Shards, test: Shards
) -> dict[str, Any]:
    """What ``metrics/generate.json`` says of samples (count, frames, bands), normalised, by these singers (count,)."""
    reference, by_singer = _statistics(description, test)
    count, frames, _ = sampled.shape
    sets = {
        "frechet": frame_statistics(sampled),
        "frechet_train": _statistics(description, train)[0],
        "frechet_band_baseline": frame_statistics(band.sample((count, frames), np.random.default_rng(0))),
    }
    found: dict[str, Any] = {name: frechet_distance(statistics, reference) for name, statistics in sets.items()}
    if description.singers:
        names = description.singers
        found["frechet_by_singer"] = {
            names[sung]: {
                names[heard]: frechet_distance(frame_statistics(sampled[singers == sung]), statistics)
                for heard, statistics in sorted(by_singer.items())
            }
            for sung in np.unique(singers).tolist()
        }
    return found


def _statistics(description: Description, shards: Shards) -> tuple[Gaussian, dict[int, Gaussian]]:
    """Of all slices, and of those of each singer by place."""
    bands = shards.settings.bands
    whole = FrameStatistics(bands)
    by_singer: dict[int, FrameStatistics] = {}
    for batch in batches(shards, description.normalisation, 512, description.singers):
        x, singers = batch.x[batch.weights > 0], batch.singers[batch.weights > 0]
        whole.update(x)
        if description.singers:
            for place in np.unique(singers).tolist():
                by_singer.setdefault(place, FrameStatistics(bands)).update(x[singers == place])
    return whole.gaussian(), {place: found.gaussian() for place, found in by_singer.items()}
