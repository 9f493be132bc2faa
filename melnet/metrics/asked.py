"""How far samples sing what they were asked to: pitch and voicing in their audio, phonemes in their spectrograms."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # carries no types

from melnet.audio.mel import MelSpec
from melnet.audio.pitch import pitch_of
from melnet.audio.spectrogram import frame_count
from melnet.audio.voice_metrics import PITCH_TOLERANCE_CENTS
from melnet.data.frame_conditions import melody_at
from melnet.data.tracks import ABSENT

MAX_FRAMES = 50_000  # of the train split: 18 minutes
NEIGHBOURS = 3  # frames on either side that the classifier sees; 5 are hardly better on PJS
# On ten songs of PJS, trained on the other 39, the network is right in 0.77 of the frames, logistic regression in 0.76:
# means of the three splits on which these settings were chosen.
HIDDEN, UPDATES, BATCH = 128, 1000, 500
WEIGHT_DECAY = 1.0  # divided by the size of a batch
BLOCK = 8192  # frames whose phonemes are predicted at a time


@dataclass(frozen=True)
class MelodyAgreement:
    """How far sung melodies are those asked for; None where there is no frame to say it by."""

    pitch_accuracy: float | None
    """share of the frames voiced in both that are within ``PITCH_TOLERANCE_CENTS`` of the pitch asked for"""
    voicing_agreement: float | None
    """share of all frames that are voiced in both or unvoiced in both"""
    contour_correlation: float | None
    """Pearson correlation of the log pitches of frames voiced in both; None if either pitch is constant"""


def melody_agreement(asked: Sequence[np.ndarray], signals: Sequence[np.ndarray], mel: MelSpec) -> MelodyAgreement:
    """Agreement of the pitch of audio with the melodies asked for, over the frames of all signals together.

    Parameters
    ----------
    asked
        A melody (frames, 2) for each signal: log Hz and voicing; see :class:`melnet.data.tracks.FrameTracks`.
    signals
        Audio (samples,) at ``mel.sample_rate``. Frames that only the melody or only the audio has do not count.

    >>> tone = np.sin(2 * np.pi * 220 * np.arange(24000) / 24000).astype(np.float32)
    >>> melody = np.tile(np.log([220, np.e]), (47, 1))
    >>> melody_agreement([melody], [tone], MelSpec()).pitch_accuracy
    1.0
    """
    rows = [np.zeros((0, 4))]
    for melody, signal in zip(asked, signals, strict=True):
        frames = min(len(melody), frame_count(len(signal), mel))
        seconds = np.arange(frames) * mel.hop_length / mel.sample_rate
        rows.append(np.concatenate([melody[:frames], melody_at(pitch_of(signal, mel.sample_rate), seconds)], axis=1))
    asked_pitch, asked_voiced, sung_pitch, sung_voiced = np.concatenate(rows).T
    both = (asked_voiced > 0) & (sung_voiced > 0)
    a, b = asked_pitch[both], sung_pitch[both]
    return MelodyAgreement(
        pitch_accuracy=_mean(np.abs(b - a) * 1200 / np.log(2) <= PITCH_TOLERANCE_CENTS),
        voicing_agreement=_mean((asked_voiced > 0) == (sung_voiced > 0)),
        contour_correlation=float(np.corrcoef(a, b)[0, 1]) if len(a) and np.ptp(a) > 0 and np.ptp(b) > 0 else None,
    )


class PhonemeClassifier:
    """A small network that says which phoneme a frame of log-mel is, from the frame and its neighbours.

    It knows how common each phoneme is in the frames that it was trained on, and prefers the common ones in doubt.

    >>> labels = np.repeat(np.array([1, 2, 1], np.int32), 50)
    >>> x = np.eye(3)[labels]
    >>> classifier = PhonemeClassifier.fit([x], [labels], seed=0)
    >>> classifier.accuracy([x], [labels]), classifier.predict(x[:2]).tolist()
    (1.0, [1, 1])
    """

    def __init__(self, network: MLPClassifier) -> None:
        self._network = network

    @classmethod
    def fit(
        cls, train: Sequence[np.ndarray], labels: Sequence[np.ndarray], *, seed: int, max_frames: int = MAX_FRAMES
    ) -> Self | None:
        """Train a classifier; None if no phoneme of any frame is known.

        Parameters
        ----------
        train
            Normalised log-mel (frames_i, bands).
        labels
            Phoneme of each frame, int32 (frames_i,). Frames of which it is ``ABSENT`` are only seen as neighbours.
        seed
            Of the network, and of the draw of frames if more than ``max_frames`` have a known phoneme.

        Raises
        ------
        ValueError
            A phoneme is given of a frame that its spectrogram does not have.
        """
        phonemes = np.concatenate([np.zeros(0, np.int32), *labels])
        known, chosen = np.flatnonzero(phonemes != ABSENT), np.zeros(len(phonemes), bool)
        if not len(known):
            return None
        chosen[np.random.default_rng(seed).permutation(known)[:max_frames]] = True
        parts = np.split(chosen, np.cumsum([len(track) for track in labels])[:-1])
        x = np.concatenate([_features(frames, np.flatnonzero(part)) for frames, part in zip(train, parts, strict=True)])
        size, epochs = min(BATCH, len(x)), -(-UPDATES // -(-len(x) // BATCH))
        network = MLPClassifier(HIDDEN, alpha=WEIGHT_DECAY, batch_size=size, max_iter=epochs, random_state=seed)
        with warnings.catch_warnings(), threadpool_limits(1, "blas"):  # more threads could change the last bit
            warnings.simplefilter("ignore", ConvergenceWarning)  # the number of updates is fixed
            return cls(network.fit(x, phonemes[chosen]))

    def predict(self, spectrogram: np.ndarray) -> np.ndarray:
        """The likeliest phoneme of each frame of normalised log-mel (frames, bands); int32 (frames,)."""
        return self._predict(spectrogram, np.arange(len(spectrogram)))

    def accuracy(self, spectrograms: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> float | None:
        """Share of the frames with a known phoneme in which it is recognised; None if there is no such frame.

        Parameters and errors are those of :meth:`fit`. A phoneme without a frame in training is never recognised.
        """
        right = [np.zeros(0, bool)]
        for x, phonemes in zip(spectrograms, labels, strict=True):
            known = np.flatnonzero(phonemes != ABSENT)
            right.append(self._predict(x, known) == phonemes[known])
        return _mean(np.concatenate(right))

    def _predict(self, x: np.ndarray, at: np.ndarray) -> np.ndarray:
        with threadpool_limits(1, "blas"):
            blocks = [self._network.predict(_features(x, at[i : i + BLOCK])) for i in range(0, len(at), BLOCK)]
        return np.concatenate([np.zeros(0, np.int32), *blocks])


def _features(x: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Frames of x (frames, bands), in order, with their neighbours; float32 (len(at), features). Edges are repeated."""
    if len(at) and at[-1] >= len(x):
        raise ValueError(f"a phoneme of frame {at[-1]}, but the spectrogram has {len(x)} frames")
    around = at[:, None] + np.arange(-NEIGHBOURS, NEIGHBOURS + 1)
    return x[np.clip(around, 0, len(x) - 1)].astype(np.float32).reshape(len(at), around.shape[1] * x.shape[1])


def _mean(right: np.ndarray) -> float | None:
    return float(right.mean()) if len(right) else None
