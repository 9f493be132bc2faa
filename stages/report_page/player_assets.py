"""Pictures and outlines for the player, without axes, so that the page can lay them over each other in time.

The signal of a spectrogram (frames, bands) lasts ``(frames - 1) * hop_length`` samples; frame ``t`` is centred on
sample ``t * hop_length``.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.colors import to_hex
from matplotlib.ticker import MaxNLocator
from PIL import Image

from melnet.audio.mel import MelSpec
from melnet.audio.pitch import FRAME_SECONDS, HIGHEST, LOWEST
from melnet.audio.spectrogram import log_mel, log_mel_error
from melnet.data.atomic import atomic_write
from melnet.data.tracks import ABSENT
from stages.figures import COLOUR_RANGE, COLOURS, TICKS_HZ

TIME_TICKS = 5  # at most; more would touch on a phone
TICK_DISTANCE = 0.12  # least distance between two frequency labels, as a share of the picture's height
OUTLINE_HEIGHT = 100  # units of an outline from amplitude -1 to 1
NOTE_GAP_SECONDS = 0.03  # by which the bar of a note is shorter, so that two notes of one pitch are told apart
PITCH_HEIGHT = 1000  # units of a line of pitch from LOWEST to HIGHEST, about 5 cents each


def colour_range(log_mels: list[np.ndarray]) -> tuple[float, float]:
    """Log-mel values of the darkest and the brightest colour, for pictures that are to be compared."""
    low, high = np.percentile(np.concatenate([mel.ravel() for mel in log_mels]), COLOUR_RANGE)
    return float(low), float(max(high, low + 1e-3))


def colour_steps(count: int) -> list[str]:
    """Colours from the lowest value to the highest, as ``#rrggbb``."""
    return [to_hex(colour) for colour in matplotlib.colormaps[COLOURS](np.linspace(0, 1, count))]


def save_spectrogram(path: Path, mel: np.ndarray, limits: tuple[float, float]) -> None:
    """Write log-mel (frames, bands) as PNG, a pixel per element, low bands at the bottom; same values, same bytes."""
    low, high = limits
    shades = np.clip((mel - low) / (high - low) * 255, 0, 255).round().astype(np.uint8)
    image = Image.fromarray(np.ascontiguousarray(shades.T[::-1]))
    image.putpalette(matplotlib.colormaps[COLOURS](np.arange(256), bytes=True)[:, :3].tobytes())
    with atomic_write(path) as temporary:
        image.save(temporary, format="PNG")


def outline(signal: np.ndarray, bins: int) -> str:
    """The signal as a closed SVG path through the extremes of ``bins`` parts.

    Coordinates are whole numbers from 0 to ``bins`` and, for amplitudes from 1 to −1, from 0 to OUTLINE_HEIGHT.
    """
    starts = np.linspace(0, len(signal), min(len(signal), bins), endpoint=False).astype(int)
    high, low = np.maximum.reduceat(signal, starts), np.minimum.reduceat(signal, starts)
    heights = ((1 - np.concatenate([high, low[::-1]])) / 2 * OUTLINE_HEIGHT).round().astype(int)
    places = np.linspace(0, bins, len(starts)).round().astype(int)
    return f"M{'L'.join(f'{x},{y}' for x, y in zip([*places, *places[::-1]], heights, strict=True))}Z"


def pitch_path(track: np.ndarray, seconds_per_frame: float = FRAME_SECONDS) -> str:
    """A pitch track (frames,) as an SVG path, which is interrupted where the track is 0.

    Coordinates are multiples of FRAME_SECONDS and, for the logarithm of pitches from HIGHEST to LOWEST, from 0 to
    PITCH_HEIGHT.
    """
    step = seconds_per_frame / FRAME_SECONDS
    points = zip(track > 0, (f"{round(x * step, 1):g},{y}" for x, y in enumerate(_heights(track))), strict=True)
    runs = ([point for _, point in run] for voiced, run in groupby(points, key=lambda pair: bool(pair[0])) if voiced)
    # A line needs two points, if only in the same place.
    return "".join(f"M{'L'.join(run if len(run) > 1 else 2 * run)}" for run in runs)


def note_path(notes: Iterable[tuple[float, float, float, str]]) -> str:
    """Notes, each with start and end in seconds and its MIDI number, as an SVG path of bars in the same coordinates."""
    bars = ((start, end, _heights(440 * 2 ** ((pitch - 69) / 12))) for start, end, pitch, _ in notes)
    return "".join(
        f"M{start / FRAME_SECONDS:.1f},{y}H{max(end - NOTE_GAP_SECONDS, start) / FRAME_SECONDS:.1f}"
        for start, end, y in bars
    )


def _heights(pitch: np.ndarray | float) -> np.ndarray:
    shares = np.log(np.clip(pitch, LOWEST, HIGHEST) / LOWEST) / np.log(HIGHEST / LOWEST)
    return ((1 - shares) * PITCH_HEIGHT).round().astype(int)


def phoneme_runs(
    phonemes: np.ndarray, names: Sequence[str], seconds_per_frame: float
) -> list[tuple[float, float, str]]:
    """Start and end in seconds, and name, of the runs of equal indices in (frames,); see ``FrameTracks.phonemes``."""
    starts = np.flatnonzero(np.diff(phonemes, prepend=-1))
    # A frame reaches half a frame to both sides of its centre.
    seconds = np.maximum(np.append(starts, len(phonemes)) - 0.5, 0) * seconds_per_frame
    runs = zip(seconds.tolist(), seconds[1:].tolist(), phonemes[starts].tolist(), strict=False)
    return [(start, end, names[index - 1]) for start, end, index in runs if index != ABSENT]


def label_spans(labels: Iterable[tuple[float, float, str]], seconds: float) -> list[tuple[float, float, str]]:
    """Left edge and width, as shares of a picture of ``seconds``, and name of labels, which are cut off at its end."""
    edges = ((start / seconds, min(end / seconds, 1.0), name) for start, end, name in labels)
    return [(left, right - left, name) for left, right, name in edges if left < right]


def time_ticks(seconds: float) -> list[float]:
    """Round numbers of seconds from 0 to the end."""
    ticks = MaxNLocator(TIME_TICKS, steps=[1, 2, 5, 10]).tick_values(0, seconds)
    return [float(tick) for tick in ticks if 0 <= tick <= seconds]


def frequency_ticks(edges_hz: np.ndarray) -> list[tuple[int, float]]:
    """Round frequencies in Hz and their heights in the picture, from 0 (bottom) to 1, for bands with these edges."""
    centres = edges_hz[1:-1]
    ticks: list[tuple[int, float]] = []
    for hz in TICKS_HZ:
        height = float((np.interp(hz, centres, np.arange(len(centres))) + 0.5) / len(centres))
        if centres[0] <= hz <= centres[-1] and (not ticks or height - ticks[-1][1] >= TICK_DISTANCE):
            ticks.append((hz, height))
    return ticks


def inversion_error(signal: np.ndarray, target: np.ndarray, mel: MelSpec) -> float:
    """Mean absolute difference in nats between a signal's log-mel and the one (frames, bands) that it was made of.

    The signal is first scaled to the mel power of ``target``.
    """
    level = np.sqrt(np.exp(target).sum() / np.exp(log_mel(signal, mel)).sum())
    return log_mel_error(log_mel((level * signal).astype(np.float32), mel), target)
