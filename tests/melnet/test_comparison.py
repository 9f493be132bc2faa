"""Samples compared with recordings: each measure in its place, on sets whose answer is known."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from melnet.audio.mel import MelSpec
from melnet.baselines.band_mixture import BandMixture
from melnet.baselines.linear_autoregression import LinearAutoregression
from melnet.baselines.previous_frame import PreviousFrame
from melnet.baselines.saved import Baselines
from melnet.comparison import compare
from melnet.data.band_statistics import BandStatistics
from melnet.data.dataset import Normalisation
from melnet.data.shards import Shards, ShardSpec, ShardWriter
from melnet.generation import Generated
from melnet.saved import ModelConfig

SPEC = ShardSpec(frames=50, mel=MelSpec(n_mels=8))
SLICES = 4  # of a recording
FIT = {"min_sigma": 0.02, "max_frames": 2000, "seed": 0}


def sung(rng, count):
    """Log-mels (count, frames, bands) of something like notes: a peak that stays or leaps, and rests."""
    frames, bands = SLICES * SPEC.frames, np.arange(SPEC.bands)
    walks = gaussian_filter1d(rng.normal(size=(2, count, frames + 100)), 6, axis=2)[..., 50:-50, None]
    peak = np.round(3.5 + 15 * walks[0])
    mels = np.where(walks[1] < -0.1, -9, -2 - 0.5 * (bands - peak) ** 2)
    return (mels + 0.1 * rng.normal(size=mels.shape)).astype("f4")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("shards"), np.random.default_rng(0)
    mels = {"train": sung(rng, 24), "test": sung(rng, 12)}
    for split, recordings in mels.items():
        with ShardWriter(folder / split, SPEC, 1000) as writer:
            for i, mel in enumerate(recordings):
                starts = np.arange(SLICES) * SPEC.frames
                writer.write(f"{split}-{i}.wav", starts, mel.reshape(SLICES, SPEC.frames, -1))
    found = BandStatistics.of(mels["train"])
    normalisation = Normalisation(*(np.float32(getattr(found, name)) for name in ("mean", "std", "low", "high")))
    config = ModelConfig(SPEC.mel, SPEC.frames, "lstm", 2, 0.02, ["tier-1"], [], normalisation)
    x = normalisation.normalise(mels["train"])
    fitted = (kind.fit(x, **FIT) for kind in (PreviousFrame, LinearAutoregression))
    baselines = Baselines(BandMixture.fit(x, num_components=2, **FIT), *fitted)
    return config, baselines, Shards(folder / "train"), Shards(folder / "test"), mels


@pytest.fixture
def compared(recorded):
    config, baselines, train, test, _ = recorded

    def run(drawn, audible=2):
        rng = np.random.default_rng(1)

        def invert(log_mels, _):
            return rng.normal(size=(len(log_mels), (log_mels.shape[1] - 1) * config.mel.hop_length)).astype("f4")

        audio = invert(drawn[:audible], None)
        generated = Generated(drawn, np.zeros(len(drawn), np.int32), audio, [])
        tracks = {f"test-{i}.wav": np.full(400, 220, np.float32) for i in range(12)}
        return compare(config, generated, invert, baselines, train, test, tracks, seed=1)

    return run


def test_samples_like_the_recordings_are_not_told_apart(compared):
    metrics = compared(sung(np.random.default_rng(5), 12)).metrics
    for name in ("told_apart", "told_apart_train"):
        for part in ("windows", "patches"):
            assert metrics[name][part]["mean"] < 0.5 + 3 * max(0.06, metrics[name][part]["spread"])
    assert metrics["told_apart_noise"]["patches"]["mean"] > 0.8
    assert metrics["mmd"]["low"] < 0.5 and 0.6 < metrics["memorised"]["ratio"] < 1.5
    assert min(metrics["precision"], metrics["recall"], metrics["coverage"]) > 0.5
    assert metrics["voice_recorded"]["pitch_median"] == 220
    assert metrics["frechet"] < metrics["frechet_band_baseline"]


def test_each_split_is_read_once(compared, monkeypatch):
    read, read_group = [], Shards.read_group
    monkeypatch.setattr(Shards, "read_group", lambda self, i: read.append((self.paths[0], i)) or read_group(self, i))
    compared(sung(np.random.default_rng(5), 4))
    assert len({path for path, _ in read}) == 2
    assert len(read) == len(set(read))


def test_noise_is_told_apart(compared, recorded):
    config = recorded[0]
    noise = np.random.default_rng(5).normal(size=(12, 200, SPEC.bands))
    metrics = compared(config.normalisation.denormalise(noise).astype("f4")).metrics
    assert metrics["told_apart"]["windows"]["mean"] > 0.95 and metrics["told_apart"]["patches"]["mean"] > 0.95
    assert metrics["mmd"]["low"] > 1


def test_a_passage_of_the_train_split_is_found_in_the_sample_that_repeats_it(compared, recorded):
    drawn = sung(np.random.default_rng(5), 6)
    drawn[1, 46:120] = recorded[4]["train"][7, 31:105]
    pair = compared(drawn).nearest
    assert (pair.sample, pair.recording) == (1, "train-7.wav")
    assert pair.sample_frame - 46 == pair.recording_frame - 31


def test_a_sample_without_audio_is_not_named(compared, recorded):
    """The nearest pair is one that can be played."""
    drawn = sung(np.random.default_rng(5), 6)
    drawn[4] = recorded[4]["train"][7]
    assert compared(drawn).nearest.sample < 2


def test_pieces_of_few_recordings_are_compared(recorded, tmp_path):
    """A corpus of some minutes may have a single recording in its test split."""
    config, baselines, train, _, mels = recorded
    with ShardWriter(tmp_path, SPEC, 1000) as writer:
        slices = mels["test"].reshape(-1, SPEC.frames, SPEC.bands)
        writer.write("one.wav", np.arange(len(slices)) * SPEC.frames, slices)
    drawn = sung(np.random.default_rng(5), 12)
    audio = np.zeros((2, 199 * config.mel.hop_length), np.float32)
    generated = Generated(drawn, np.zeros(12, np.int32), audio, [])
    tracks = {"one.wav": np.full(4000, 220, np.float32)}
    invert = lambda log_mels, _: np.zeros((len(log_mels), 199 * config.mel.hop_length), np.float32)  # noqa: E731
    metrics = compare(config, generated, invert, baselines, train, Shards(tmp_path), tracks, seed=1).metrics
    assert metrics["told_apart"]["windows"]["mean"] < 0.7 and metrics["mmd"]["low"] < 0.5


def test_what_cannot_be_measured_is_left_out(compared):
    found = compared(np.zeros((2, 20, SPEC.bands), np.float32))
    assert found.nearest is None
    assert not {"memorised", "mmd", "precision", "told_apart"} & set(found.metrics)
    assert found.metrics["frechet"] > 0
