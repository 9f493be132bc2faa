"""Melody and phonemes of each frame of a spectrogram: pitch tracks and timed labels, read at the frames' centres.

Frame ``t`` is centred on sample ``t * hop_length`` (:mod:`melnet.audio.spectrogram`). Labels have the times of the
original recording, and the spectrogram is of the recording whose pauses were shortened (:mod:`melnet.audio.pauses`).
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from melnet.audio.mel import MelSpec
from melnet.audio.pauses import Cut
from melnet.audio.pitch import pitch_at
from melnet.audio.spectrogram import frame_count
from melnet.data.labels.label import Label, Unit
from melnet.data.tracks import ABSENT, Vocabulary


def original_samples(samples: np.ndarray, cuts: Sequence[Cut]) -> np.ndarray:
    """Where samples of a shortened recording lie in the original one; int64 in the shape of ``samples``.

    What follows a cut begins with its fade-in, at the sample where the cut ends.

    Parameters
    ----------
    samples
        Numbers of samples in the shortened recording, at or behind its first.
    cuts
        What was left out, in samples of the original recording, in order.

    >>> original_samples(np.array([0, 99, 100, 150]), [Cut(100, 1100), Cut(1140, 1240)]).tolist()
    [0, 99, 1100, 1250]
    """
    starts, stops = np.array(cuts, np.int64).reshape(-1, 2).T
    removed = np.concatenate([[0], np.cumsum(stops - starts)])
    return samples + removed[np.searchsorted(starts - removed[:-1], samples, side="right")]


def vocabulary_of(unit: Unit, labelled: Iterable[Sequence[Label]]) -> Vocabulary:
    """The names of all labels, with the median duration of each.

    >>> vocabulary_of("phonemes", [[Label(0.0, 0.2, "a"), Label(0.2, 0.3, "t")]]).names
    ('a', 't')
    """
    durations = defaultdict(list)
    for label in (label for labels in labelled for label in labels):
        durations[label.name].append(label.end - label.start)
    names = tuple(sorted(durations))
    return Vocabulary(unit, names, tuple(round(float(np.median(durations[name])), 4) for name in names))


def phonemes_at(labels: Sequence[Label], seconds: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """Index of the phoneme at each of the times, int32 in the shape of ``seconds``; 0 where there is no label.

    Parameters
    ----------
    labels
        In order, none of them overlapping.

    >>> vocabulary = Vocabulary("phonemes", ("a", "t"))
    >>> phonemes_at([Label(0.1, 0.2, "t"), Label(0.2, 0.4, "a")], np.array([0.0, 0.1, 0.2, 0.4]), vocabulary).tolist()
    [0, 2, 1, 0]
    """
    if not labels:
        return np.full(np.shape(seconds), ABSENT, np.int32)
    starts, ends = np.array([label[:2] for label in labels]).T
    indices = np.array([vocabulary.index(label.name) for label in labels], np.int32)
    last = np.searchsorted(starts, seconds, side="right") - 1  # the last label that has begun
    return np.where((last >= 0) & (seconds < ends[last]), indices[last], np.int32(ABSENT))


def melody_at(pitch_track: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Melody at each of the times, float32 (frames, 2): see :class:`melnet.data.tracks.FrameTracks`.

    Parameters
    ----------
    pitch_track
        Hz by frames of :data:`melnet.audio.pitch.FRAME_SECONDS`, 0 where it is not voiced.

    >>> print(melody_at(np.array([220.0, 220.0, 0.0]), np.array([0.0, 0.032])).round(2))
    [[5.39 1.  ]
     [5.39 0.  ]]
    """
    return np.stack(pitch_at(pitch_track, seconds), axis=-1)


def frame_seconds(samples: int, mel: MelSpec, cuts: Sequence[Cut]) -> np.ndarray:
    """Where the frames of a shortened recording of so many samples lie in the original one, in seconds (frames,).

    ``cuts`` are what was left out of the original, in samples at ``mel.sample_rate``.

    >>> frame_seconds(1024, MelSpec(), [Cut(512, 24000)]).round(2).tolist()
    [0.0, 1.0, 1.02]
    """
    centres = np.arange(frame_count(samples, mel)) * mel.hop_length
    return original_samples(centres, cuts) / mel.sample_rate


def recording_tracks(
    samples: int,
    mel: MelSpec,
    pitch_track: np.ndarray,
    labels: Sequence[Label] | None,
    cuts: Sequence[Cut],
    vocabulary: Vocabulary,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Melody (frames, 2) and phonemes (frames,) of the frames of a recording; no phonemes without labels.

    Parameters
    ----------
    samples
        Length of the shortened recording, of which ``pitch_track`` is.
    cuts
        What was left out of the original recording, of which ``labels`` are; in samples at ``mel.sample_rate``.

    >>> labels, vocabulary = [Label(1.0, 2.0, "a")], Vocabulary("phonemes", ("a",))
    >>> melody, phonemes = recording_tracks(
    ...     1024, MelSpec(), np.full(4, 220.0), labels, [Cut(512, 24000)], vocabulary
    ... )
    >>> melody.shape, phonemes.tolist()
    ((3, 2), [0, 1, 1])
    """
    centres = np.arange(frame_count(samples, mel)) * mel.hop_length
    melody = melody_at(pitch_track, centres / mel.sample_rate)
    if labels is None:
        return melody, None
    return melody, phonemes_at(labels, frame_seconds(samples, mel, cuts), vocabulary)
