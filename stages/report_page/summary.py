"""Summary of the corpus and of the metrics for the report's templates, in plain values."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from melnet.data.shards import Shards
from stages.corpus.files import named_audio
from stages.corpus.manifest import read_manifest
from stages.paths import CLEAN

UNUSED_LISTED = 200
LEVEL_STEP = 3  # dB of a bar
Better: TypeAlias = Literal["lower", "higher"] | None


@dataclass(frozen=True)
class Bar:
    """One bar of a histogram."""

    label: str
    count: int
    share: float  # of the highest bar


@dataclass(frozen=True)
class Metric:
    """The meaning of a metric."""

    meaning: str
    better: Better = None


COPY: dict[str, tuple[str, Better]] = {
    "voicing_accuracy": ("share of frames that are rightly voiced or unvoiced", "higher"),
    "pitch_accuracy": ("share of the recordings' voiced frames whose pitch is right", "higher"),
    "octave_errors": ("share of the frames voiced in both whose pitch is an octave off", "lower"),
    "stft_distance": ("distance of the spectra at several resolutions, nats", "lower"),
    "full_band_error": ("error of the log-mel over all frequencies, nats", "lower"),
    "mel_cepstral_distortion": ("mel-cepstral distortion, dB", "lower"),
    "harmonics_to_noise": ("harmonics-to-noise ratio, dB; good if it is the recordings'", None),
    "harmonics_to_noise_recorded": ("harmonics-to-noise ratio of the recordings, dB", None),
    "log_mel_error": ("error of the log-mel in the bands of the model, nats", "lower"),
}
METRICS = {
    "nll": Metric("model, test split, nats per element", "lower"),
    "baseline_band_nll": Metric("independent mixture of Gaussians per band, no context"),
    "baseline_previous_frame_nll": Metric("linear regression on the previous frame"),
    "baseline_linear_nll": Metric("linear regression on three frames and the lower bands"),
    "nll_above_floor": Metric("model, without the elements on the log floor", "lower"),
    "baseline_band_nll_above_floor": Metric("mixture per band, without the floor"),
    "baseline_previous_frame_nll_above_floor": Metric("regression on the previous frame, without the floor"),
    "baseline_linear_nll_above_floor": Metric("regression on three frames and the lower bands, without the floor"),
    "nll_log_mel": Metric("model, in units of the log-mel before normalisation, to compare corpora", "lower"),
    "baseline_linear_nll_log_mel": Metric("regression on three frames and the lower bands, in these units"),
    "nll_train": Metric("model, random windows of the train split; far below nll, it shows over-fitting"),
    "text.nll": Metric("first tier, windows that begin with an utterance, with its text, nats per element", "lower"),
    "text.nll_shuffled": Metric("with the texts of other windows"),
    "text.nll_without": Metric("without a text"),
    "text.windows": Metric("number of these windows"),
    "text.finished": Metric("share of samples that sing their text to its end", "higher"),
    "nll_without": Metric("model that is not told this; above nll by what it is worth"),
    "tiers": Metric("model, of the elements that this tier models", "lower"),
    "floored": Metric("share of elements on the log floor (silence)"),
    "mmd.value": Metric("MMD of windows of samples from windows of the test split, times 100; 0 if alike", "lower"),
    "mmd.low": Metric("5th percentile of it"),
    "mmd.high": Metric("95th percentile of it"),
    "precision": Metric("share of sample windows near to a window of the test split", "higher"),
    "recall": Metric("share of test windows near to a sample window", "higher"),
    "coverage": Metric("share of test windows with a sample window among their nearest", "higher"),
    "memorised.ratio": Metric("distance of samples to the train split by that of test recordings, median"),
    "memorised.ratio_low": Metric("the same, 5th percentile; far below 1: learnt by heart"),
    "memorised.nearest": Metric("distance of the nearest passage of a sample to the train split"),
    "frechet": Metric("Fréchet distance of generated frames from the test split", "lower"),
    "frechet_train": Metric("Fréchet distance of the train split from the test split"),
    "frechet_band_baseline": Metric("Fréchet distance of samples of the mixture per band from the test split"),
    "frechet_by_singer": Metric("samples of the first singer from test recordings of the second"),
    "log_mel_error_copy": Metric(
        "loss of the inversion on recordings: nats between their log-mel and that of the audio made of it"
    ),
    "log_mel_error_generated": Metric("loss of the inversion on samples, in nats"),
    "epochs": Metric("epochs that were run"),
    "stopped_early": Metric("whether training ended early, by train.patience"),
    "device": Metric("what the training was computed on"),
    "best_epoch": Metric("epoch with the lowest validation loss, which is kept"),
    "loss": Metric("train split in that epoch, nats per element", "lower"),
    "val_loss": Metric("validation split in that epoch, nats per element", "lower"),
}
# Names that are put together from others.
METRICS |= {
    f"{voice}.{name}": Metric(f"{whose}: {meaning}")
    for voice, whose in {"voice": "samples", "voice_recorded": "test split"}.items()
    for name, meaning in {
        "voiced_share": "share of frames that are voiced",
        "pitch_low": "5th percentile of the pitch, Hz",
        "pitch_median": "median of the pitch, Hz",
        "pitch_high": "95th percentile of the pitch, Hz",
        "jitter_cents": "mean change of the pitch's slope from frame to frame, cents",
    }.items()
}
METRICS |= {
    f"{name}.{part}.{figure}": Metric(
        f"{what} told from the test split by {by}{suffix}",
        "lower" if (name, figure) == ("told_apart", "mean") else None,
    )
    for name, what in (
        ("told_apart", "samples"),
        ("told_apart_train", "train recordings"),
        ("told_apart_noise", "noise"),
    )
    for part, by in {"windows": "windows of 1 s", "patches": "patches of 0.2 s"}.items()
    for figure, suffix in (("mean", ", share right; 0.5 is guessing"), ("spread", ", spread over folds"))
}
METRICS |= {
    f"{name}.{figure}": Metric(f"{whose}: {meaning}", None if name == "asked_recorded" else "higher")
    for name, whose in {
        "asked": "samples asked to sing what test passages do",
        "asked_recorded": "these passages, recorded",
        "score": "samples of generate.score",
    }.items()
    for figure, meaning in {
        "pitch_accuracy": "share of the frames voiced in both that are within 50 cents of what was asked",
        "voicing_agreement": "share of frames that are voiced or unvoiced as asked",
        "contour_correlation": "correlation of the pitch with what was asked",
        "phoneme_accuracy": "share of frames in which a classifier hears the phoneme asked for",
    }.items()
}
METRICS |= {
    f"{split}.{inversion}.{name}": Metric(f"copy by {by}, {of} split: {meaning}", better)
    for split, of in {"valid": "validation", "test": "test"}.items()
    for inversion, by in {"vocoder": "the vocoder", "griffin-lim": "Griffin-Lim"}.items()
    for name, (meaning, better) in COPY.items()
}


def meanings(names: Iterable[str]) -> dict[str, Metric]:
    """Meanings of metrics by name, ``tiers.tier-1`` for a nested one. Unknown metrics are left out.

    >>> meanings(["tiers.tier-2", "voice.pitch_low", "unknown"])["voice.pitch_low"]
    Metric(meaning='samples: 5th percentile of the pitch, Hz', better=None)
    """
    known = {name: METRICS.get(name, METRICS.get(name.split(".")[0])) for name in names}
    return {name: metric for name, metric in known.items() if metric}


def worth(scores: dict[str, Any]) -> dict[str, float]:
    """Nats per element that a model gains by being told each condition, from the metrics of ``evaluate``.

    >>> worth({"nll": -1.5, "nll_without.melody": -1.25})
    {'melody': 0.25}
    """
    without = {name.removeprefix("nll_without."): value for name, value in scores.items() if "nll_without." in name}
    return {name: value - scores["nll"] for name, value in without.items()}


def corpus(shards: dict[str, Shards]) -> dict[str, Any]:
    """Lengths, unused files, levels and split of the corpus."""
    rows = read_manifest(CLEAN)
    used = [row for row in rows if row["status"] == "ok"]
    unused = [row for row in rows if row["status"] != "ok"]
    return {
        "recordings": len(used),
        "hours": sum(row["seconds_out"] for row in used) / 3600,
        "rates": sorted({row["source_rate"] for row in used}),
        "attenuated": sum(row["gain"] < 1 for row in used),
        "removed_hours": sum(row["seconds_removed"] for row in used) / 3600,
        "unused": [(row["path"], row["reason"]) for row in unused[:UNUSED_LISTED]],
        "unused_count": len(unused),
        # Label files are no rejected recordings.
        "rejected_count": sum(row["status"] == "rejected" and named_audio(Path(row["path"])) for row in rows),
        "duplicate_count": sum(row["status"] == "duplicate" for row in rows),
        "rms": histogram([decibels(row["rms"]) for row in used]),
        "peak": histogram([decibels(row["peak"]) for row in used]),
        "split": _split(shards),
    }


def decibels(amplitude: float) -> float:
    """dB relative to full scale."""
    return 20 * math.log10(amplitude)


def histogram(levels: list[float]) -> list[Bar]:
    """Bars of LEVEL_STEP dB from the lowest level to the highest, empty ones between them included."""
    found = Counter(math.floor(level / LEVEL_STEP) for level in levels)
    highest = max(found.values())
    bins = range(min(found), max(found) + 1)
    return [Bar(f"{i * LEVEL_STEP} to {(i + 1) * LEVEL_STEP}", found[i], found[i] / highest) for i in bins]


def _split(shards: dict[str, Shards]) -> list[dict[str, Any]]:
    slices = {split: len(part) for split, part in shards.items()}
    spec = shards["train"].spec
    seconds = spec.frames * spec.mel.seconds_per_frame
    return [
        {"name": split, "slices": count, "minutes": count * seconds / 60, "share": count / sum(slices.values())}
        for split, count in slices.items()
    ]
