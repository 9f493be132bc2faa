"""Summary of the corpus and of the metrics for the report's templates, in plain values."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from melnet.data.shards import Shards
from stages.corpus.manifest import read_manifest
from stages.paths import CLEAN

REJECTS_LISTED = 200
LEVEL_STEP = 3  # dB of a bar


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
    lower_is_better: bool = False


METRICS = {
    "nll": Metric("model, test split, nats per element", lower_is_better=True),
    "baseline_band_nll": Metric("independent mixture of Gaussians per band, no context"),
    "baseline_previous_frame_nll": Metric("linear regression on the previous frame"),
    "nll_above_floor": Metric("model, without the elements on the log floor", lower_is_better=True),
    "baseline_band_nll_above_floor": Metric("mixture per band, without the floor"),
    "baseline_previous_frame_nll_above_floor": Metric("regression, without the floor"),
    "tiers": Metric("model, of the elements that this tier models", lower_is_better=True),
    "floored": Metric("share of elements on the log floor (silence)"),
    "frechet": Metric("Fréchet distance of generated frames from the test split", lower_is_better=True),
    "frechet_train": Metric("Fréchet distance of the train split from the test split"),
    "frechet_band_baseline": Metric("Fréchet distance of samples of the mixture per band from the test split"),
    "frechet_by_singer": Metric("samples of the first singer from test recordings of the second"),
    "log_mel_error_copy": Metric(
        "loss of Griffin-Lim on recordings: nats between their log-mel and that of the audio made of it"
    ),
    "log_mel_error_generated": Metric("loss of Griffin-Lim on samples, in nats"),
    "best_epoch": Metric("epoch with the lowest validation loss, which is kept"),
    "loss": Metric("train split in that epoch, nats per element", lower_is_better=True),
    "val_loss": Metric("validation split in that epoch, nats per element", lower_is_better=True),
}


def meanings(names: Iterable[str]) -> dict[str, Metric]:
    """Meanings of metrics by name, ``tiers.tier-1`` for a nested one. Unknown metrics are left out."""
    known = {name: METRICS.get(name.split(".")[0]) for name in names}
    return {name: metric for name, metric in known.items() if metric}


def corpus(shards: dict[str, Shards]) -> dict[str, Any]:
    """Lengths, rejects, levels and split of the corpus."""
    rows = read_manifest(CLEAN)
    used = [row for row in rows if row["status"] == "ok"]
    rejected = [row for row in rows if row["status"] != "ok"]
    return {
        "recordings": len(used),
        "hours": sum(row["seconds_out"] for row in used) / 3600,
        "rates": sorted({row["source_rate"] for row in used}),
        "attenuated": sum(row["gain"] < 1 for row in used),
        "rejected": [(row["path"], row["reason"]) for row in rejected[:REJECTS_LISTED]],
        "rejected_count": len(rejected),
        "rms": histogram([decibels(row["rms"]) for row in used]),
        "peak": histogram([decibels(row["peak"]) for row in used]),
        "split": _split(shards),
    }


def decibels(amplitude: float) -> float:
    """dB relative to full scale."""
    return 20 * math.log10(amplitude)


def histogram(levels: list[float]) -> list[Bar]:
    """Bars of LEVEL_STEP dB from the lowest level to the highest, empty ones between them included."""
    bins = [math.floor(level / LEVEL_STEP) for level in levels]
    found = Counter(bins)
    counts = {i: found[i] for i in range(min(bins), max(bins) + 1)}
    highest = max(counts.values())
    return [Bar(f"{i * LEVEL_STEP} to {(i + 1) * LEVEL_STEP}", count, count / highest) for i, count in counts.items()]


def _split(shards: dict[str, Shards]) -> list[dict[str, Any]]:
    slices = {split: len(part) for split, part in shards.items()}
    spec = shards["train"].spec
    seconds = spec.frames * spec.mel.seconds_per_frame
    return [
        {"name": split, "slices": count, "minutes": count * seconds / 60, "share": count / sum(slices.values())}
        for split, count in slices.items()
    ]
