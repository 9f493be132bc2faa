"""How far a generated set is from the recordings: Fréchet distances, of all samples and singer by singer."""

from typing import Any

import numpy as np

from melnet.baselines import BandMixture
from melnet.data.dataset import batches
from melnet.data.shards import Shards
from melnet.metrics import FrameStatistics, Gaussian, frame_statistics, frechet_distance
from melnet.saved import Description


def distances(
    description: Description, sampled: np.ndarray, singers: np.ndarray, band: BandMixture, train: Shards, test: Shards
) -> dict[str, Any]:
    """What ``metrics/generate.json`` says of samples (count, frames, bands), normalised, by these singers (count,)."""
    reference, recorded = statistics(description, test)
    count, frames, _ = sampled.shape
    sets = {
        "frechet": frame_statistics(sampled),
        "frechet_train": statistics(description, train)[0],
        "frechet_band_baseline": frame_statistics(band.sample((count, frames), np.random.default_rng(0))),
    }
    found: dict[str, Any] = {name: frechet_distance(one, reference) for name, one in sets.items()}
    if description.singers:
        found["frechet_by_singer"] = by_singer(description, sampled, singers, recorded)
    return found


def by_singer(
    description: Description, sampled: np.ndarray, singers: np.ndarray, recorded: dict[int, Gaussian]
) -> dict[str, dict[str, float]]:
    """Distance of the samples of each singer from the recordings of each: sung -> heard -> distance."""
    names = description.singers
    return {
        names[sung]: {
            names[heard]: frechet_distance(frame_statistics(sampled[singers == sung]), recording)
            for heard, recording in sorted(recorded.items())
        }
        for sung in np.unique(singers).tolist()
    }


def statistics(description: Description, *splits: Shards) -> tuple[Gaussian, dict[int, Gaussian]]:
    """Of all slices of the splits together, and of those of each singer by place."""
    whole = FrameStatistics(description.mel.n_mels)
    apart: dict[int, FrameStatistics] = {}
    for shards in splits:
        for batch in batches(shards, description.normalisation, 512, description.singers):
            x, singers = batch.x[batch.weights > 0], batch.singers[batch.weights > 0]
            whole.update(x)
            if description.singers:
                for place in np.unique(singers).tolist():
                    apart.setdefault(place, FrameStatistics(description.mel.n_mels)).update(x[singers == place])
    return whole.gaussian(), {place: found.gaussian() for place, found in apart.items()}
