"""Figures of spectrograms, signals and training, drawn without a screen; equal input gives byte-equal PNG files."""

from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from melnet.data.atomic import atomic_write

WIDTH = 12.0  # inches
ROW_HEIGHT = 2.6  # inches, of spectrograms with their title and axis
DPI = 130
COLOURS = "magma"  # perceptually uniform, and in grey still in order
COLOUR_RANGE = (0.1, 99.9)  # percentiles of all values, so that a single outlier does not darken everything else
TICKS_HZ = (50, 100, 200, 500, 1000, 2000, 3000, 5000, 8000, 12000, 20000)
TICK_INCHES = 0.4  # least distance between the labels of a time axis
MAX_RATES = 5  # learning rates named on their axis
WAVEFORM_BINS = 2000  # about two per pixel
TIER_LOSS = "nats per element"
VOCODER_LOSSES = {"vocoder-pitch": "nats per frame", "vocoder-envelopes": "nats"}  # of its networks' histories


def spectrogram_strip(rows: Sequence[tuple[str, np.ndarray]], edges_hz: np.ndarray, seconds_per_frame: float) -> Figure:
    """Draw rows of spectrograms, such as generated above recorded ones, on one scale of time, frequency and colour.

    Parameters
    ----------
    rows
        Title and log-mel (slices, frames, bands), natural log of power, not normalised. The slices of a row stand side
        by side; 4 to 8 are readable.
    edges_hz
        Edges of the triangular bands, (bands + 2,) (``MelSpec.edges_hz``).
    seconds_per_frame
        Hop length over sample rate.
    """
    figure = Figure(figsize=(WIDTH, ROW_HEIGHT * len(rows)), dpi=DPI)
    values = np.concatenate([log_mel.ravel() for _, log_mel in rows])
    scale = Normalize(*np.percentile(values, COLOUR_RANGE))
    longest = max(log_mel.shape[0] * log_mel.shape[1] for _, log_mel in rows)
    step = _time_step(longest * seconds_per_frame / WIDTH)
    # Margins are shares of the figure's height. These keep titles and axes equally high for any number of rows.
    top, bottom = 1 - 0.15 / len(rows), 0.23 / len(rows)
    grid = figure.add_gridspec(len(rows), 1, left=0.06, right=0.905, top=top, bottom=bottom, hspace=0.61)
    for i, (title, log_mel) in enumerate(rows):
        slices, frames, _ = log_mel.shape
        # A shorter row is padded with an empty cell, so that a second is equally wide in all rows.
        widths = [frames] * slices + [longest - slices * frames] * (slices * frames < longest)
        cells = grid[i].subgridspec(1, len(widths), width_ratios=widths, wspace=0.05)
        panels = [figure.add_subplot(cells[j]) for j in range(slices)]
        for axes, spectrogram in zip(panels, log_mel, strict=True):
            _spectrogram(axes, spectrogram, edges_hz, seconds_per_frame, scale)
            axes.set_xticks(_time_ticks(frames * seconds_per_frame, step))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.tick_params(left=axes is panels[0], labelleft=axes is panels[0])
        panels[0].set_title(title, loc="left")
        panels[0].set_ylabel("frequency (Hz)")
        panels[0].set_xlabel("time (s)", loc="left")
    bar = figure.add_axes((0.917, bottom, 0.012, top - bottom))
    figure.colorbar(ScalarMappable(scale, COLOURS), cax=bar, label="log power (nats)", extend="both")
    return figure


def waveforms(samples: Sequence[np.ndarray], sample_rate: int, titles: Sequence[str]) -> Figure:
    """Draw signals over time, one above the other; each (samples,) with amplitudes from −1 to 1."""
    figure = Figure(figsize=(WIDTH, 0.6 + 0.9 * len(samples)), dpi=DPI, layout="constrained")
    column = figure.subplots(len(samples), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, signal, title in zip(column, samples, titles, strict=True):
        seconds, amplitude = _envelope(signal, sample_rate)
        axes.plot(seconds, amplitude, linewidth=0.6)
        axes.set_title(title, loc="left", fontsize="small")
        axes.grid(alpha=0.3)
    column[0].set_ylim(-1, 1)
    column[0].margins(x=0)
    column[-1].set_xlabel("time (s)")
    figure.supylabel("amplitude")
    return figure


def alignment_pictures(alignments: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw when which symbol of texts is read (:func:`melnet.reading.alignments`): a diagonal of steps if it is."""
    columns = min(4, len(alignments))
    rows = -(-len(alignments) // columns)
    figure = Figure(figsize=(WIDTH, 1.3 * ROW_HEIGHT * rows), dpi=DPI, layout="constrained")
    for i, alignment in enumerate(alignments):
        weights, symbols = np.array(alignment["weights"]).T, alignment["symbols"]
        axes = figure.add_subplot(rows, columns, i + 1)
        seconds = weights.shape[1] * alignment["seconds_per_frame"]
        extent = (0, seconds, -0.5, len(symbols) - 0.5)
        axes.imshow(
            weights, aspect="auto", origin="lower", cmap=COLOURS, vmin=0, vmax=1, extent=extent, interpolation="nearest"
        )
        axes.set_yticks(range(len(symbols)), symbols, fontsize=6)
        axes.set_title(alignment["name"], fontsize=8)
        axes.set_xlabel("s", fontsize=7)
        axes.tick_params(axis="x", labelsize=7)
    return figure


def curves(history: Mapping[str, Sequence[float]], unit: str = TIER_LOSS) -> Figure:
    """Draw losses and learning rate over the epochs, and mark the best epoch.

    ``history`` has the lists ``loss`` and ``val_loss`` (in ``unit``) and ``learning_rate``, with one entry per epoch.
    Epochs are counted from 1.
    """
    train, valid, rate = history["loss"], history["val_loss"], history["learning_rate"]
    epochs = np.arange(1, len(train) + 1)
    best = int(np.argmin(valid))
    figure = Figure(figsize=(8, 6), dpi=DPI, layout="constrained")
    loss_axes, rate_axes = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    loss_axes.plot(epochs, train, marker=".", label="train")
    loss_axes.plot(epochs, valid, marker=".", label="validation")
    loss_axes.axvline(epochs[best], color="grey", linestyle=":", label=f"best: epoch {epochs[best]}, {valid[best]:.3f}")
    loss_axes.set_ylabel(f"loss ({unit})")
    loss_axes.legend()
    rate_axes.step(epochs, rate, where="mid", marker=".")
    rate_axes.set_yscale("log")  # a halving is the same step everywhere
    rates = np.unique(rate)[::-1]
    rate_axes.set_yticks(rates[:: -(-len(rates) // MAX_RATES)])
    rate_axes.yaxis.set_minor_locator(NullLocator())
    rate_axes.yaxis.set_major_formatter("{x:.3g}")
    rate_axes.set_ylabel("learning rate")
    rate_axes.set_xlabel("epoch")
    rate_axes.set_xlim(0.5, len(epochs) + 0.5)
    rate_axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))
    for axes in (loss_axes, rate_axes):
        axes.grid(alpha=0.3)
    return figure


def loss_unit(history: str) -> str:
    """Unit of the losses in ``metrics/history/HISTORY.csv``.

    >>> loss_unit("tier-1"), loss_unit("vocoder-pitch")
    ('nats per element', 'nats per frame')
    """
    return VOCODER_LOSSES.get(history, TIER_LOSS)


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG; it appears complete or not at all."""
    with atomic_write(path) as temporary:
        # The name and version of the software would change the bytes with every release of matplotlib.
        figure.savefig(temporary, format="png", metadata={"Software": None})


def _spectrogram(
    axes: Axes, log_mel: np.ndarray, edges_hz: np.ndarray, seconds_per_frame: float, scale: Normalize
) -> None:
    """Draw one spectrogram, (frames, bands), low bands at the bottom."""
    frames, bands = log_mel.shape
    axes.imshow(
        log_mel.T,
        origin="lower",
        aspect="auto",
        extent=(0, frames * seconds_per_frame, -0.5, bands - 0.5),
        norm=scale,
        cmap=COLOURS,
    )
    centres = edges_hz[1:-1]  # band i has its centre at height i
    ticks = [hz for hz in TICKS_HZ if centres[0] <= hz <= centres[-1]]
    axes.set_yticks(np.interp(ticks, centres, np.arange(bands)), [str(hz) for hz in ticks])


def _time_step(seconds_per_inch: float) -> float:
    """The smallest of 0.1, 0.2, 0.5, 1, 2, 5 … seconds that leaves room for a label."""
    least = TICK_INCHES * seconds_per_inch
    return next(step * 10**power for power in count(-1) for step in (1, 2, 5) if step * 10**power >= least)


def _time_ticks(seconds: float, step: float) -> np.ndarray:
    """Multiples of ``step`` in a slice, without those whose label would touch the first label of the next slice."""
    return np.arange(0, max(seconds - 0.6 * step, step / 2), step)


def _envelope(signal: np.ndarray, sample_rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Seconds and values of a line through the minimum and maximum of at most ``WAVEFORM_BINS`` parts of a signal.

    A line through every sample looks the same and takes a hundred times as long to draw.
    """
    starts = np.linspace(0, len(signal), min(len(signal), WAVEFORM_BINS), endpoint=False).astype(int)
    extremes = np.stack([np.minimum.reduceat(signal, starts), np.maximum.reduceat(signal, starts)], axis=1)
    return np.repeat(starts / sample_rate, 2), extremes.ravel()
