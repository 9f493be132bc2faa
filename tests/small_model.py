"""A small model on disk, to sing with: its weights are fixed and were not trained."""

import numpy as np

from melnet.audio.mel import MelSpec
from melnet.data.dataset import Normalisation
from melnet.data.tracks import Vocabulary
from melnet.saved import FrameConditioning, ModelConfig, TierConfig, build_tier, save_config, save_tier
from melnet.vocoder.config import VocoderConfig
from melnet.vocoder.networks import EnvelopeNetwork, PitchNetwork, build
from melnet.vocoder.saved import save_vocoder
from melnet.vocoder.synthesis import Vocoder
from tests.weights import fixed

MEL, SINGERS, FRAMES = MelSpec(), ["anna", "bo"], 10


TOLD = FrameConditioning(
    ("melody", "phonemes"),
    lookahead=4,
    vocabulary=Vocabulary("phonemes", ("a", "t"), seconds=(0.2, 0.1), voiced=(1.0, 0.0)),
    range_hz=(196.0, 700.0),
)


def write_model(folder, tiers=1, singers=(), vocoder=True, told=None, alphabet=None):
    """Write a model, and a vocoder for it, into a folder; return the folder."""
    bands = (np.full(MEL.n_mels, value, np.float32) for value in (-4, 2, MEL.log_floor, 2))
    normalisation = Normalisation(*bands)
    names = [f"tier-{number}" for number in range(1, tiers + 1)]
    config = ModelConfig(MEL, FRAMES, "lstm", 2, 0.02, names, list(singers), normalisation, told, alphabet)
    save_config(folder, config)
    for name in names:
        size = TierConfig(layers=1, hidden=6)
        save_tier(folder, config, name, size, fixed(build_tier(config, name, size)))
    if vocoder:
        shape = VocoderConfig(MEL, normalisation, list(singers), hidden=8, blocks=1)
        networks = (fixed(build(network(shape), shape)) for network in (PitchNetwork, EnvelopeNetwork))
        save_vocoder(folder, Vocoder(shape, *networks), "vocoder")
    return folder
