"""A small workspace with shards, and what the stages after `slice` make of them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from melnet.data.band_statistics import BandStatistics
from melnet.data.dataset import Normalisation
from melnet.data.pitch_tracks import write_pitch_tracks
from melnet.data.shards import ShardSpec, ShardWriter
from melnet.data.tracks import TrackSpec, write_tracks
from stages.parameters import load_params
from stages.paths import MODELS, PITCH, SHARDS, TRACKS
from tests.params_file import edit_params

ROOT = Path(__file__).parents[2]
SMALL = {
    "slice": {"frames": 10},
    "model": {"num_components": 2, "tiers": {"tier-1": {"layers": 1, "hidden": 6}}},
    "train": {"window_frames": 10, "windows_per_epoch": 40, "epochs": 2, "batch_size": 8},
    "vocoder": {"pitch_steps": 2, "envelope_steps": 2, "hidden": 8, "blocks": 1},
    "generate": {"count": 2, "frames": 12, "measured": 0, "griffin_lim_iterations": 2},
}


def write_params(folder, changes):
    """The project's own params.yaml with some values changed."""
    return load_params(edit_params(folder, changes))


def write_shards(folder, params, counts, singers=("",)):
    """Slow waves with noise and some silence, as `slice` would leave them; singers take turns, each at a level.

    Beside them are the tracks of a model that is told nothing of the frames.
    """
    rng = np.random.default_rng(0)
    frames, bands = params.slice.frames, params.mel.n_mels
    spec = ShardSpec(frames, params.mel_spec)
    for split, count in counts.items():
        time = np.arange(count * frames).reshape(count, frames, 1)
        mels = 3 * np.sin(0.3 * time + 0.2 * np.arange(bands)) - 4 + 0.3 * rng.normal(size=(count, frames, bands))
        mels[rng.random(mels.shape) < 0.1] = spec.mel.log_floor
        mels = mels.astype(np.float32)
        with ShardWriter(folder / split, spec, 1000) as writer:
            for turn, singer in enumerate(singers):
                starts = np.arange(count)[turn :: len(singers)] * frames
                writer.write("wave.wav", starts, mels[turn :: len(singers)] + turn, singer)
        if split == "train":
            statistics = BandStatistics.of(mels)
    columns = {name: getattr(statistics, name).tolist() for name in ("mean", "std", "low", "high")}
    (folder / "normalisation.json").write_text(json.dumps(columns))
    (folder / "singers.json").write_text(json.dumps({"singers": sorted(set(singers))}))
    write_tracks(folder.parent / TRACKS.name, TrackSpec(spec.mel.sample_rate, spec.mel.hop_length, ()), [])


def write_vocoder(folder, params, singers=(), preferred="vocoder"):
    """A vocoder with initial weights."""
    from melnet.vocoder.config import VocoderConfig
    from melnet.vocoder.networks import EnvelopeNetwork, PitchNetwork, build
    from melnet.vocoder.saved import save_vocoder
    from melnet.vocoder.synthesis import Vocoder

    normalisation = Normalisation.read(SHARDS / "normalisation.json")
    config = VocoderConfig(params.mel_spec, normalisation, list(singers), hidden=8, blocks=1)
    vocoder = Vocoder(config, build(PitchNetwork(config), config), build(EnvelopeNetwork(config), config))
    save_vocoder(folder, vocoder, preferred)


@pytest.fixture(name="write_vocoder")
def write_vocoder_fixture():
    return write_vocoder


@pytest.fixture(name="write_shards")
def write_shards_fixture():
    return write_shards


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A workspace after `train`, and its parameters; not to be changed."""
    from stages.model import model
    from stages.train import train

    folder = tmp_path_factory.mktemp("workspace")
    shutil.copy(ROOT / "dvc.yaml", folder)
    for code in ("melnet", "stages"):
        (folder / code).symlink_to(ROOT / code)
    params = write_params(folder, SMALL)
    write_shards(folder / "data/shards", params, {"train": 40, "valid": 12, "test": 20})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        model(params)
        train(params)
        write_vocoder(MODELS, params)
        write_pitch_tracks(PITCH, [("wave.wav", np.full(2000, 220, np.float32))])
    return folder, params


@pytest.fixture
def workspace(trained, tmp_path, monkeypatch):
    """A copy of it to work in, which is the current directory."""
    folder, params = trained
    shutil.copytree(folder, tmp_path / "copy", symlinks=True)
    monkeypatch.chdir(tmp_path / "copy")
    return params
