"""Audio without end: chunks of a stream of spectrogram frames, while they are sampled."""

from collections.abc import Callable, Iterator

import numpy as np

from melnet.audio.crossfade import crossfade
from melnet.audio.griffin_lim import mel_to_audio
from melnet.audio.mel import MelSpec
from melnet.sampling import SamplingSettings

BLOCK_FRAMES = 40  # that Griffin-Lim turns into audio at a time
JOINT_FRAMES = 8  # of them, which the block before has too
EDGE_FRAMES = 2  # the last frames of a block, where fewer windows overlap than elsewhere; they are left out


class Stream(Iterator[np.ndarray]):
    """Chunks of audio, one after the other without end; each float32 (chunk samples,), not limited to ±1.

    Parameters
    ----------
    frames
        Log-mel of the next frames, (frames, bands).
    push
        Takes further frames and gives the samples (samples,) that are complete.
    settings
        What ``frames`` are sampled with. Their changes are heard once the frames that are already drawn have been
        played.
    chunk_samples
        Length of a chunk.

    Attributes
    ----------
    log_mel : (frames, bands)
        Frames that were drawn for the last chunk, if any. The vocoder looks some 80 frames ahead, so they come earlier
        than their audio: frame ``t`` of the stream is centred on its sample ``t * hop_length``.

    >>> from itertools import repeat
    >>> silence = repeat(np.zeros((4, 32)))
    >>> stream = Stream(silence, lambda frames: np.zeros(512 * len(frames)), SamplingSettings(), chunk_samples=3000)
    >>> stream.settings.temperature = 0.8
    >>> [len(next(stream)) for _ in range(2)]
    [3000, 3000]
    >>> stream.log_mel.shape
    (4, 32)
    """

    def __init__(
        self,
        frames: Iterator[np.ndarray],
        push: Callable[[np.ndarray], np.ndarray],
        settings: SamplingSettings,
        chunk_samples: int,
    ) -> None:
        self.settings = settings
        self._frames, self._push, self._chunk_samples = frames, push, chunk_samples
        self._ready = np.zeros(0, np.float32)
        self.log_mel = np.zeros((0, 0), np.float32)

    def __next__(self) -> np.ndarray:
        drawn = [self.log_mel[:0]]
        while len(self._ready) < self._chunk_samples:
            drawn.append(next(self._frames))
            self._ready = np.concatenate([self._ready, self._push(drawn[-1])])
        self.log_mel = np.concatenate(drawn[1:] or drawn)
        chunk, self._ready = np.split(self._ready, [self._chunk_samples])
        return chunk


class GriffinLimStream:
    """Turns frames into audio block by block; each block is crossfaded with the one before it.

    A block begins with the last frames of the one before, and is moved by at most a hop to where both are in phase.

    >>> mel = MelSpec()
    >>> stream = GriffinLimStream(mel, iterations=2, seed=0)
    >>> silence = np.full((BLOCK_FRAMES // 2, mel.n_mels), mel.log_floor)
    >>> [len(stream.push(silence)) // mel.hop_length for _ in range(3)]
    [0, 32, 0]
    """

    def __init__(self, mel: MelSpec, iterations: int, seed: int) -> None:
        self._mel, self._iterations, self._seed = mel, iterations, seed
        self._frames = np.zeros((0, mel.n_mels), np.float32)
        self._tail: np.ndarray | None = None  # the end of the last block, over which the next one is faded in

    def push(self, log_mel: np.ndarray) -> np.ndarray:
        """Take further frames (frames, bands); give the samples (samples,) that are complete."""
        self._frames = np.concatenate([self._frames, log_mel])
        if len(self._frames) < BLOCK_FRAMES:
            return np.zeros(0, np.float32)
        hop = self._mel.hop_length
        signal = mel_to_audio(self._frames[None], self._mel, self._iterations, self._seed)[0][: -EDGE_FRAMES * hop]
        overlap = (JOINT_FRAMES - 1 - EDGE_FRAMES) * hop
        if self._tail is not None:
            signal = crossfade(self._tail, signal, overlap=overlap, fade=2 * hop)
        self._frames = self._frames[-JOINT_FRAMES:]
        complete, self._tail = np.split(signal, [-overlap])
        return complete
