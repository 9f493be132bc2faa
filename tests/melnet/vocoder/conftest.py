"""A small vocoder, and recordings to train it on."""

import numpy as np
import pytest
import soundfile

from melnet.audio.mel import MelSpec
from melnet.audio.pitch import pitch_of
from melnet.data.dataset import Normalisation, Stretch
from melnet.vocoder.config import VocoderConfig
from melnet.vocoder.corpus import read_runs
from melnet.vocoder.networks import EnvelopeNetwork, PitchNetwork, build
from melnet.vocoder.synthesis import Vocoder

BANDS = [np.full(32, value, np.float32) for value in (-2.0, 3.0, -11.5, 8.0)]


@pytest.fixture(scope="session")
def small_config():
    return VocoderConfig(MelSpec(), Normalisation(*BANDS), singers=[], hidden=12, blocks=2)


@pytest.fixture
def small_vocoder(small_config):
    import keras

    keras.utils.set_random_seed(1)
    return Vocoder(
        small_config,
        build(PitchNetwork(small_config), small_config),
        build(EnvelopeNetwork(small_config), small_config),
    )


@pytest.fixture(scope="session")
def make_runs(tmp_path_factory, small_config):
    """Runs of recordings, (samples,) each."""

    def make(*signals, config=small_config, singers=None):
        folder = tmp_path_factory.mktemp("recordings")
        files, tracks, stretches = {}, {}, []
        for number, signal in enumerate(signals):
            name = f"{number}.wav"
            files[name] = folder / name
            soundfile.write(files[name], signal, config.mel.sample_rate, subtype="FLOAT")
            tracks[name] = pitch_of(signal.astype(np.float32), config.mel.sample_rate)
            singer = singers[number] if singers else ""
            stretches.append(Stretch(name, singer, 0, len(signal) // config.mel.hop_length))
        return read_runs(stretches, config, files, tracks)

    return make
