"""Mel to audio: a batch of 16 spectrograms of 10 s, against ``librosa.feature.inverse.mel_to_audio`` item by item.

Both run 32 iterations over the same log-mel spectrograms of the built-in voice. The quality compares the log-mel
spectrogram of the audio with the given one: the mean absolute difference in nats, and the spectral convergence
``|M - M'| / |M|`` of the mel magnitudes (Frobenius norm).
"""

import librosa
import numpy as np

from bench.common import ROOT, Claim, alternate, report, seconds
from melnet.audio.griffin_lim import mel_to_audio
from melnet.audio.spectrogram import log_mel, log_mel_error
from stages.demo_voice.voice import song
from stages.parameters import Params, load_params

ITEMS, SECONDS, ITERATIONS = 16, 10, 32
ROUNDS = 2  # the reference takes about half a minute


def main() -> None:
    params = load_params(ROOT / "params.yaml")
    log_mels = np.stack([_spectrogram(seed, params) for seed in range(ITEMS)])
    audio: dict[str, np.ndarray] = {}

    def ours() -> float:
        return seconds(lambda: audio.update(ours=mel_to_audio(log_mels, params.mel_spec, ITERATIONS, seed=1)))

    def reference() -> float:
        return seconds(lambda: audio.update(librosa=np.stack([_librosa(item, params) for item in log_mels])))

    _librosa(log_mels[0, :50], params)  # the first call imports and compiles
    measured = alternate(ROUNDS, ours, reference)
    errors, convergences = {}, {}
    for side, signals in audio.items():
        again = np.stack([log_mel(signal, params.mel_spec) for signal in signals])
        errors[side], convergences[side] = log_mel_error(again, log_mels), _convergence(again, log_mels)
        print(f"{side}: log-mel error {errors[side]:.4f} nats, spectral convergence {convergences[side]:.4f}")
    report(
        Claim.at_least(
            10, f"mel to audio, {ITEMS} × {SECONDS} s, speed against librosa", [ref / own for own, ref in measured], "×"
        ),
        Claim.at_most(1, "its log-mel error, against librosa's", [errors["ours"] / errors["librosa"]], "×"),
        Claim.at_most(
            1, "its spectral convergence, against librosa's", [convergences["ours"] / convergences["librosa"]], "×"
        ),
    )


def _spectrogram(seed: int, params: Params) -> np.ndarray:
    """Log-mel of the first seconds of a song; (frames, bands)."""
    rate = params.downsample.sample_rate
    sung = np.concatenate(list(song(np.random.default_rng(seed), SECONDS, rate)))[: SECONDS * rate]
    return log_mel(sung.astype(np.float32), params.mel_spec)


def _librosa(item: np.ndarray, params: Params) -> np.ndarray:
    mel = params.mel
    return librosa.feature.inverse.mel_to_audio(
        np.exp(item.T),
        sr=params.downsample.sample_rate,
        n_fft=mel.n_fft,
        hop_length=mel.hop_length,
        n_iter=ITERATIONS,
        fmin=mel.fmin,
        fmax=mel.fmax,
    )


def _convergence(log_mels: np.ndarray, given: np.ndarray) -> float:
    magnitudes, target = np.exp(log_mels / 2), np.exp(given / 2)
    return float(np.linalg.norm(magnitudes - target) / np.linalg.norm(target))


if __name__ == "__main__":
    main()
