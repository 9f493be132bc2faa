"""How well a voice survives the way from audio to a spectrogram and back."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace

import numpy as np

from melnet.audio.griffin_lim import mel_to_audio
from melnet.audio.mel import MelSpec
from melnet.audio.pitch import pitch_of
from melnet.audio.spectrogram import log_mel, log_mel_error
from melnet.audio.voice_metrics import (
    full_band_error,
    harmonics_to_noise,
    mel_cepstral_distortion,
    pitch_agreement,
    stft_distance,
)
from melnet.vocoder.corpus import Run
from melnet.vocoder.saved import GRIFFIN_LIM, VOCODER, Inversion
from melnet.vocoder.synthesis import Vocoder

Invert = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""log-mel (1, frames, bands) and singer ids (1,) -> audio (1, samples)"""
PASSAGE_SECONDS = 10.0  # at most, of a run
GRIFFIN_LIM_ITERATIONS = 32  # those of generate.* are no setting of the vocoder: changing them should not train again


def compare(vocoder: Vocoder, runs: Sequence[Run], seed: int) -> dict[Inversion, dict[str, float]]:
    """Copy synthesis of the first ten seconds of each run, by the vocoder and by Griffin-Lim; see :func:`measure`.

    Metrics that need voiced frames are missing where there are none.
    """
    mel = vocoder.config.mel
    frames = max(2, round(PASSAGE_SECONDS / mel.seconds_per_frame))
    passages = [
        replace(run, log_mel=run.log_mel[:frames], log_pitch=run.log_pitch[:frames], voiced=run.voiced[:frames])
        for run in runs
    ]
    inversions: dict[Inversion, Invert] = {
        VOCODER: lambda log_mels, singers: vocoder(log_mels, singers.tolist(), seed),
        GRIFFIN_LIM: lambda log_mels, _: mel_to_audio(log_mels, mel, GRIFFIN_LIM_ITERATIONS, seed),
    }
    measured = {name: measure(invert, passages, mel) for name, invert in inversions.items()}
    return {
        name: {metric: value for metric, value in metrics.items() if value is not None}
        for name, metrics in measured.items()
    }


def measure(invert: Invert, runs: Sequence[Run], mel: MelSpec) -> dict[str, float | None]:
    """Mean metrics of the copy synthesis of runs, each compared with its recording.

    See :mod:`melnet.audio.voice_metrics`. ``log_mel_error`` is the mean absolute difference in nats of the model's own
    spectrogram; ``harmonics_to_noise_recorded`` that figure of the recordings. A metric that needs voiced frames is
    None where there are none.
    """
    rows = []
    for run in runs:
        copy = invert(run.log_mel[None], np.array([run.singer_id], np.int32))[0]
        recorded = run.samples[mel.n_fft : mel.n_fft + len(copy)]
        track = pitch_of(recorded, mel.sample_rate)
        rows.append(
            {
                **asdict(pitch_agreement(track, pitch_of(copy, mel.sample_rate))),
                "stft_distance": stft_distance(recorded, copy),
                "full_band_error": full_band_error(recorded, copy, mel.sample_rate),
                "mel_cepstral_distortion": mel_cepstral_distortion(recorded, copy, mel.sample_rate),
                "harmonics_to_noise": harmonics_to_noise(copy, track, mel.sample_rate),
                "harmonics_to_noise_recorded": harmonics_to_noise(recorded, track, mel.sample_rate),
                "log_mel_error": log_mel_error(log_mel(copy, mel), run.log_mel),
            }
        )
    return {name: _mean([row[name] for row in rows]) for name in rows[0]}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
