"""Losses of the two networks of a vocoder, one value per item of the batch."""

import keras
import numpy as np
from keras import ops

from melnet.audio.pitch import LOWEST
from melnet.backend import Tensor
from melnet.vocoder.config import BIN_CENTS, PITCH_BINS

VOICING_WEIGHT = 2.0
RESOLUTIONS = ((2048, 512), (1024, 256), (512, 192), (256, 128))  # samples of window and hop at 24 kHz
SMALLEST_POWER = 1e-8


class PitchLoss(keras.losses.Loss):
    """Cross-entropy of the pitch's bin in voiced frames, and of voicing in all frames; nats per frame.

    The target is a Gaussian of one bin's width around the pitch, as in CREPE (arXiv 1802.06182).
    """

    def __init__(self) -> None:
        super().__init__(reduction="mean_with_sample_weight")

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """``y_true`` (batch, frames, 2): log pitch and voicing; ``y_pred``: the network's logits."""
        log_pitch, voiced = y_true[..., 0], y_true[..., 1]
        position = (log_pitch - np.log(LOWEST)) * (1200 / np.log(2) / BIN_CENTS)
        bins = np.arange(PITCH_BINS, dtype=np.float32)
        target = ops.exp(-0.5 * ops.square(ops.expand_dims(position, -1) - bins))
        target = target / (ops.sum(target, axis=-1, keepdims=True) + 1e-6)
        cross_entropy = -ops.sum(target * ops.log_softmax(y_pred[..., :-1]), axis=-1)
        pitch = ops.sum(cross_entropy * voiced, axis=1) / (ops.sum(voiced, axis=1) + 1)
        logit = y_pred[..., -1]
        voicing = ops.softplus(logit) - voiced * logit
        return pitch + VOICING_WEIGHT * ops.mean(voicing, axis=1)


class SpectralLoss(keras.losses.Loss):
    """Energy distance of log-magnitude spectra at several resolutions, low frequencies weighted up; nats.

    Of two renderings with different noise, the mean distance to the recording less half their distance from each other
    (arXiv 2008.01160). Without the second term the noise part would be too quiet: a log magnitude in the middle of its
    distribution is nearest to all others.

    Parameters
    ----------
    sample_rate
        In Hz.
    margin
        Samples at the beginning that are left out.
    """

    def __init__(self, sample_rate: int, margin: int) -> None:
        super().__init__(reduction="mean_with_sample_weight")
        self.sample_rate, self.margin = sample_rate, margin

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """``y_true`` (batch, samples): recordings; ``y_pred`` (batch, 2, samples): two renderings of each."""
        first, second = y_pred[:, 0, self.margin :], y_pred[:, 1, self.margin :]
        signals = [y_true[:, self.margin :], first, second]
        losses = []
        for window, hop in RESOLUTIONS:
            recorded, first, second = (log_magnitude(signal, window, hop) for signal in signals)
            weight = self._weights(window)

            def distance(a: Tensor, b: Tensor, weight: np.ndarray = weight) -> Tensor:
                return ops.mean(ops.abs(a - b) * weight, axis=(1, 2))

            to_recording = 0.5 * (distance(recorded, first) + distance(recorded, second))
            losses.append(to_recording - 0.5 * distance(first, second))
        return sum(losses[1:], losses[0]) / len(RESOLUTIONS)

    def _weights(self, window: int) -> np.ndarray:
        """Weights of the bins, mean 1, which fall with the mel scale's density to two fifths."""
        hz = np.arange(window // 2 + 1) * self.sample_rate / window
        weights = 0.4 + 1.8 * 700 / (700 + hz)
        return (weights / weights.mean()).astype(np.float32)


def log_magnitude(signals: Tensor, window: int, hop: int) -> Tensor:
    """Log magnitude spectra (batch, frames, bins) of signals (batch, samples), Hann windows of unit energy; nats."""
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    framed = ops.extract_sequences(signals, window, hop) * (hann / np.sqrt(np.sum(hann**2))).astype(np.float32)
    real, imag = ops.rfft(framed)
    return 0.5 * ops.log(ops.square(real) + ops.square(imag) + SMALLEST_POWER)
