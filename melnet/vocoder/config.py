"""The shape of a vocoder."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from melnet.audio.mel import MelSpec
from melnet.audio.pitch import HIGHEST, LOWEST
from melnet.data.dataset import Normalisation

KERNEL = 5  # frames of a convolution
BIN_CENTS = 25.0
PITCH_BINS = 1 + round(1200 * np.log2(HIGHEST / LOWEST) / BIN_CENTS)
HARMONIC_POINTS, NOISE_POINTS = 80, 48
"""points of the two spectral envelopes"""
LONGEST_SUBFRAME = 0.012  # s; spectral envelopes change from one subframe to the next


@dataclass(frozen=True)
class VocoderConfig:
    """Spectrograms and singers that a vocoder was trained for, and its size; the content of ``vocoder.json``.

    >>> config = VocoderConfig(MelSpec(), Normalisation.identity(32), singers=[], hidden=160, blocks=5)
    >>> config.subframes, config.subframe_hop, config.window, config.n_fft, config.context
    (2, 256, 1024, 2048, 12)
    """

    mel: MelSpec
    normalisation: Normalisation
    singers: list[str]
    """names in the order of the singer ids; empty if the vocoder is not conditioned on singers"""
    hidden: int
    """features of both networks"""
    blocks: int
    """residual blocks of each network"""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid", "strict": True}

    def __post_init__(self) -> None:
        if self.normalisation.mean.shape != (self.mel.n_mels,):
            raise ValueError(f"normalisation: {len(self.normalisation.mean)} bands, but n_mels is {self.mel.n_mels}")

    @property
    def subframes(self) -> int:
        """Envelopes per frame: the fewest that divide the hop and are no further apart than 12 ms."""
        hop = self.mel.hop_length
        longest = max(1, int(LONGEST_SUBFRAME * self.mel.sample_rate))
        count = next(count for count in range(1, hop + 1) if hop % count == 0 and hop // count <= longest)
        # A hop with large prime factors would be divided into slivers.
        return count if count <= 4 * -(-hop // longest) else 1

    @property
    def subframe_hop(self) -> int:
        """Samples between two subframes."""
        return self.mel.hop_length // self.subframes

    @property
    def window(self) -> int:
        """Samples of the Hann window of a subframe; four overlap everywhere."""
        return 4 * self.subframe_hop

    @property
    def n_fft(self) -> int:
        """Length of the transform in which a subframe is filtered: a power of two, twice the window or more.

        The half that the window leaves free holds the filter's decay, at least 30 ms of it.
        """
        return 1 << int(np.ceil(np.log2(self.window + max(self.window, 0.03 * self.mel.sample_rate))))

    @property
    def context(self) -> int:
        """Frames on either side of a frame that each network sees."""
        return (KERNEL // 2) * (1 + self.blocks)
