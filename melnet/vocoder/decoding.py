"""From the pitch network's logits to a pitch track: Viterbi's algorithm with a fixed lag, so that it can stream."""

import numpy as np

from melnet.audio.pitch import LOWEST
from melnet.vocoder.config import BIN_CENTS, PITCH_BINS

LAG = 16  # frames that the decoder looks ahead; paths have long met by then
COST_PER_BIN, HIGHEST_COST = 0.08, 1.5  # nats for a change of pitch from one frame to the next
NEIGHBOURS = 3  # bins on either side of the path over which the pitch is averaged
# An unvoiced frame says little about the pitch, but not nothing: otherwise the path would not be defined.
LEAST_WEIGHT = 0.05
# Where a melody is asked for, pitches far from it cost something, so that the octave is never in doubt. A voice glides
# and wavers, and what the spectrogram clearly shows counts more.
FREE_SEMITONES, COST_PER_SEMITONE, HIGHEST_MELODY_COST = 1.0, 1.0, 6.0  # nats


def melody_cost(melody: np.ndarray) -> np.ndarray:
    """Nats by which each pitch bin is less likely where a melody is asked for.

    Parameters
    ----------
    melody : (..., 2)
        As in :class:`melnet.data.tracks.FrameTracks`. Where it is not voiced, or not known, nothing costs anything.

    Returns
    -------
    float32 (..., PITCH_BINS)

    >>> cost = melody_cost(np.array([[np.log(LOWEST), 1.0], [0.0, 0.0]]))
    >>> cost[:, [0, 4, 48]].tolist()  # the pitch asked for, a semitone above it, an octave above it
    [[0.0, 0.0, 6.0], [0.0, 0.0, 0.0]]
    """
    asked = (melody[..., :1] - np.log(LOWEST)) * 12 / np.log(2)
    distance = np.abs(asked - np.arange(PITCH_BINS) * BIN_CENTS / 100)
    cost = np.clip((distance - FREE_SEMITONES) * COST_PER_SEMITONE, 0, HIGHEST_MELODY_COST)
    return np.where(melody[..., 1:] > 0.5, cost, 0).astype(np.float32)


class PitchDecoder:
    """Decodes a stream of logits; its output lags :data:`LAG` frames behind.

    The path maximises the sum of log probabilities, weighted by the probability of voicing, less the cost of changes.
    Around it the pitch is the mean over neighbouring bins, weighted by their probability.

    >>> logits = np.full((1, 40, PITCH_BINS + 1), -9.0)
    >>> logits[..., 84] = logits[..., -1] = 9.0  # bin 84 lies 2100 cents above LOWEST
    >>> log_pitch, voiced = PitchDecoder(items=1)(logits)
    >>> log_pitch.shape, round(float(np.exp(log_pitch[0, 0])), 1), bool(voiced.all())
    ((1, 24), 218.6, True)
    """

    def __init__(self, items: int) -> None:
        distance = np.abs(np.subtract.outer(np.arange(PITCH_BINS), np.arange(PITCH_BINS)))
        self._cost = np.minimum(distance * COST_PER_BIN, HIGHEST_COST).astype(np.float32)
        self._scores = np.zeros((items, PITCH_BINS), np.float32)
        # Of the frames that are not decoded yet.
        self._log_probabilities = np.zeros((items, 0, PITCH_BINS), np.float32)
        self._voiced = np.zeros((items, 0), np.float32)
        self._best = np.zeros((items, 0), int)
        self._previous = np.zeros((items, 0, PITCH_BINS), np.int16)

    def __call__(self, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Decode further frames.

        Parameters
        ----------
        logits : (items, frames, PITCH_BINS + 1)

        Returns
        -------
        log_pitch, voiced
            Natural logarithm of Hz and the probability of voicing, both (items, frames), of the frames that are now
            :data:`LAG` frames back. All calls together give ``LAG`` frames fewer than they take.
        """
        bins, voicing = logits[..., :-1], logits[..., -1]
        bins = bins - bins.max(axis=-1, keepdims=True)
        log_probabilities = bins - np.log(np.exp(bins).sum(axis=-1, keepdims=True))
        voiced = 1 / (1 + np.exp(-np.clip(voicing, -30, 30)))
        previous = np.empty(log_probabilities.shape, np.int16)
        best = np.empty(voiced.shape, int)
        for frame in range(logits.shape[1]):
            reached = self._scores[:, :, None] - self._cost
            previous[:, frame] = reached.argmax(axis=1)
            weight = np.maximum(voiced[:, frame, None], LEAST_WEIGHT)
            self._scores = reached.max(axis=1) + weight * log_probabilities[:, frame]
            self._scores -= self._scores.max(axis=1, keepdims=True)  # differences count, and sums would lose precision
            best[:, frame] = self._scores.argmax(axis=1)
        self._log_probabilities = np.concatenate([self._log_probabilities, log_probabilities], axis=1)
        self._voiced = np.concatenate([self._voiced, voiced], axis=1)
        self._best = np.concatenate([self._best, best], axis=1)
        self._previous = np.concatenate([self._previous, previous], axis=1)
        return self._decode()

    def _decode(self) -> tuple[np.ndarray, np.ndarray]:
        ready = max(0, self._best.shape[1] - LAG)
        items, frames = np.arange(len(self._best))[:, None], np.arange(ready)
        path = self._best[:, LAG : LAG + ready]
        for back in range(LAG, 0, -1):
            path = self._previous[items, frames + back, path]
        window = path[..., None] + np.arange(-NEIGHBOURS, NEIGHBOURS + 1)
        inside = (window >= 0) & (window < PITCH_BINS)
        near = np.clip(window, 0, PITCH_BINS - 1)
        weights = np.where(inside, np.exp(self._log_probabilities[items[..., None], frames[:, None], near]), 0)
        cents = BIN_CENTS * (weights * near).sum(axis=-1) / np.maximum(weights.sum(axis=-1), 1e-30)
        voiced = self._voiced[:, :ready]
        self._log_probabilities = self._log_probabilities[:, ready:]
        self._voiced, self._best = self._voiced[:, ready:], self._best[:, ready:]
        self._previous = self._previous[:, ready:]
        return np.log(LOWEST) + cents * np.log(2) / 1200, voiced
