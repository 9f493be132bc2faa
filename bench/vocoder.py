"""The vocoder on one core: how many seconds of audio it makes in a second, beside Griffin-Lim with 32 iterations.

Both turn a minute of one voice into audio. The vocoder has the default sizes; its weights, here the initial ones, make
no difference to its speed.
"""

import numpy as np

import bench._one_core  # noqa: F401  # first
from bench.common import ROOT, Claim, alternate, report, seconds
from melnet.audio.griffin_lim import mel_to_audio
from melnet.data.dataset import Normalisation
from melnet.vocoder.config import VocoderConfig
from melnet.vocoder.networks import EnvelopeNetwork, PitchNetwork, build
from melnet.vocoder.synthesis import Vocoder
from stages.parameters import load_params

SECONDS, ITERATIONS, ROUNDS = 60, 32, 5


def main() -> None:
    params = load_params(ROOT / "params.yaml")
    mel = params.mel_spec
    config = VocoderConfig(mel, Normalisation.identity(mel.n_mels), [], params.vocoder.hidden, params.vocoder.blocks)
    vocoder = Vocoder(config, build(PitchNetwork(config), config), build(EnvelopeNetwork(config), config))
    frames = round(SECONDS / mel.seconds_per_frame)
    log_mels = np.cumsum(np.random.default_rng(0).normal(0, 0.2, (1, frames, mel.n_mels)), axis=1).astype(np.float32)
    log_mels = np.clip(log_mels, mel.log_floor, 6)
    vocoder(log_mels[:, :100])
    measured = alternate(
        ROUNDS,
        lambda: seconds(lambda: vocoder(log_mels)),
        lambda: seconds(lambda: mel_to_audio(log_mels, mel, ITERATIONS, seed=1)),
    )
    report(
        Claim.at_least(
            30, "vocoder on one core, seconds of audio in a second", [SECONDS / v for v, _ in measured], "×"
        ),
        Claim.at_least(
            10, "Griffin-Lim on one core, seconds of audio in a second", [SECONDS / other for _, other in measured], "×"
        ),
    )


if __name__ == "__main__":
    main()
