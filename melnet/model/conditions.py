"""Features of what is to be sung at each frame, from the tracks that condition a tier: melody and phonemes.

A score is known in advance, so the features of a frame depend on some later frames too, the look-ahead, and on a few
earlier ones, which show where a note or a phoneme began.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from melnet.backend import Tensor
from melnet.data.tracks import ABSENT
from melnet.model.precision import Dense, float32

LOWEST_HZ, HIGHEST_HZ = 55.0, 1320.0  # of the pitches that are told apart; beyond them the nearest one counts
BIN_CENTS = 50.0
LOOK_BACK = 4  # frames
BAND_FEATURES = 8  # of each band and frame


def pitch_bins() -> np.ndarray:
    """Natural logarithms of the pitches that the bins stand for, float32 (bins,).

    >>> pitch_bins().shape, float(np.exp(pitch_bins()[24]).round(1))
    ((112,), 110.0)
    """
    octaves = np.log2(HIGHEST_HZ / LOWEST_HZ)
    count = int(np.ceil(octaves * 1200 / BIN_CENTS)) + 1
    return (np.log(LOWEST_HZ) + np.arange(count) * BIN_CENTS / 1200 * np.log(2)).astype(np.float32)


class FrameConditions(keras.layers.Layer):
    """Features of every frame, and of every band of it, from condition tracks.

    A pitch is given as its distance to bins of 50 cents, so that the harmonics it puts into each band can be learned
    as a table. Phonemes are embedded. A convolution over frames joins them. What is not known adds nothing, as what
    lies before the first frame does; so where nothing is known, the features of all frames are the same.

    Parameters
    ----------
    hidden, bands
        Features of a frame, and bands of the tier.
    melody
        Whether there is a melody.
    phonemes
        Number of phoneme indices, of which 0 stands for one that is not known; 0 if there are no phonemes.
    lookahead
        Later frames that the features of a frame depend on. Tracks are longer than spectrograms by as much.

    >>> layer = FrameConditions(hidden=4, bands=3, melody=True, phonemes=0, lookahead=2)
    >>> layer.build(None)
    >>> of_frames, of_bands = layer({"melody": np.zeros((1, 5 + 2, 2), np.float32)})
    >>> tuple(of_frames.shape), tuple(of_bands.shape)
    ((5, 1, 1, 4), (5, 3, 1, 8))
    """

    def __init__(self, hidden: int, bands: int, *, melody: bool, phonemes: int, lookahead: int, **kwargs: Any) -> None:
        super().__init__(**float32(kwargs))
        self.hidden, self.bands, self.lookahead = hidden, bands, lookahead
        self.melody_input = Dense(hidden, use_bias=False, name="melody") if melody else None
        self.phoneme_input = (
            keras.layers.Embedding(phonemes, hidden, dtype="float32", name="phonemes") if phonemes else None
        )
        self.over_frames = keras.layers.Conv1D(
            hidden, LOOK_BACK + 1 + lookahead, activation="gelu", dtype="float32", name="over_frames"
        )
        self.of_frames = Dense(hidden, activation="gelu", name="of_frames")
        self.of_bands = Dense(bands * BAND_FEATURES, name="of_bands")

    def build(self, input_shape: object) -> None:
        if self.melody_input:
            self.melody_input.build((None, None, len(pitch_bins()) + 2))
        if self.phoneme_input:
            self.phoneme_input.build()
        self.over_frames.build((None, None, self.hidden))
        self.of_frames.build((None, None, self.hidden))
        self.of_bands.build((None, None, self.hidden))
        self.built = True

    def call(self, tracks: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Features of frames (frames, 1, batch, hidden) and of bands (frames, bands, batch, ``BAND_FEATURES``).

        Parameters
        ----------
        tracks
            ``melody`` (batch, frames + lookahead, 2) and ``phonemes`` int32 (batch, frames + lookahead), see
            :class:`melnet.data.tracks.FrameTracks`.
        """
        terms = []
        if self.melody_input:
            log_pitch, voicing = ops.split(tracks["melody"], 2, axis=-1)
            bins = pitch_bins()
            log_pitch = ops.clip(log_pitch, bins[0], bins[-1])
            near = ops.maximum(0.0, 1.0 - ops.abs(log_pitch - bins) / float(bins[1] - bins[0]))
            voiced, known = ops.cast(voicing > 0.5, near.dtype), ops.cast(voicing > -0.5, near.dtype)
            terms.append(self.melody_input(ops.concatenate([near * voiced, voiced, known], axis=-1)))
        if self.phoneme_input:
            known = ops.cast(ops.expand_dims(tracks["phonemes"], -1) != ABSENT, self.compute_dtype)
            terms.append(known * self.phoneme_input(tracks["phonemes"]))
        padded = ops.pad(sum(terms[1:], terms[0]), ((0, 0), (LOOK_BACK, 0), (0, 0)))
        features = ops.transpose(self.of_frames(self.over_frames(padded)), (1, 0, 2))  # (frames, batch, hidden)
        of_bands = ops.reshape(self.of_bands(features), (*ops.shape(features)[:2], self.bands, BAND_FEATURES))
        return ops.expand_dims(features, 1), ops.transpose(of_bands, (0, 2, 1, 3))
