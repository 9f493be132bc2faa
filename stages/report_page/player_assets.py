"""Pictures and outlines for the player, without axes, so that the page can lay them over each other in time.

The signal of a spectrogram (frames, bands) lasts ``(frames - 1) * hop_length`` samples; frame ``t`` is centred on
sample ``t * hop_length``.
"""

from itertools import groupby
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.colors import to_hex
from matplotlib.ticker import MaxNLocator
from PIL import Image

from melnet.audio.mel import MelSpec
from melnet.audio.pitch import HIGHEST, LOWEST
from melnet.audio.spectrogram import log_mel, log_mel_error
from melnet.data.atomic import atomic_write
from stages.figures import COLOUR_RANGE, COLOURS, TICKS_HZ

TIME_TICKS = 5  # at most; more would touch on a phone
TICK_DISTANCE = 0.12  # least distance between two frequency labels, as a share of the picture's height
OUTLINE_HEIGHT = 100  # units of an outline from amplitude -1 to 1
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


def pitch_path(track: np.ndarray) -> str:
    """A pitch track (frames,) as an SVG path, which is interrupted where the track is 0.

    Coordinates are frames and, for the logarithm of pitches from HIGHEST to LOWEST, from 0 to PITCH_HEIGHT.
    """
    shares = np.log(np.clip(track, LOWEST, HIGHEST) / LOWEST) / np.log(HIGHEST / LOWEST)
    heights = ((1 - shares) * PITCH_HEIGHT).round().astype(int)
    points = zip(track > 0, (f"{x},{y}" for x, y in enumerate(heights)), strict=True)
    runs = ([point for _, point in run] for voiced, run in groupby(points, key=lambda pair: bool(pair[0])) if voiced)
    # A line needs two points, if only in the same place.
    return "".join(f"M{'L'.join(run if len(run) > 1 else 2 * run)}" for run in runs)


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
