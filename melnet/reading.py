"""How a model reads texts along spectrograms: of its own samples, and of recordings."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from melnet.data.dataset import read_stretches
from melnet.data.shards import Shards
from melnet.data.texts import Texts
from melnet.singing import Model, Text

SECONDS = 5.0  # at most, of the recordings that are read
MAX_FRAMES = 2**18  # of the test split that are read
DIGITS = 2  # of attention weights


def spoken_texts(texts: Texts, test: Shards, count: int) -> list[str]:
    """The first texts of at most ``count`` recordings of the test split."""
    recordings = dict.fromkeys(recording for recording, _ in test.positions())
    found = [texts.of(recording)[0].text for recording in recordings if texts.of(recording)]
    return [texts.spec.alphabet.text(text) for text in found[:count]]


def alignments(model: Model, log_mels: Mapping[str, np.ndarray], text: Text) -> list[dict[str, Any]]:
    """When spectrograms (frames, bands), given by name, read which symbol of a text, or of texts in turn.

    Returns
    -------
    For each its ``name``, its ``symbols``, the ``seconds_per_frame`` and the attention ``weights``, by frame
    """
    alphabet = model.config.alphabet
    assert alphabet
    weights = model.alignment(np.stack(list(log_mels.values())), text)
    return [
        {
            "name": name,
            "symbols": alphabet.spell(own),
            "seconds_per_frame": model.config.mel.seconds_per_frame,
            "weights": found[:, : np.count_nonzero(own)].round(DIGITS).tolist(),
        }
        for name, own, found in zip(log_mels, model.symbols(text, len(weights)), weights, strict=True)
    ]


def recorded_alignments(model: Model, texts: Texts, test: Shards, count: int) -> list[dict[str, Any]]:
    """As :func:`alignments`, of an utterance of at most ``count`` recordings of the test split."""
    seconds_per_frame = model.config.mel.seconds_per_frame
    recorded = read_stretches(test, MAX_FRAMES, seed=0)
    frames = min(round(SECONDS / seconds_per_frame), max(len(stretch.log_mel) for stretch in recorded) // 2)
    found: dict[str, tuple[np.ndarray, str]] = {}
    for stretch in recorded:
        windows = texts.windows(stretch.recording, stretch.start_frame, len(stretch.log_mel), frames)
        if windows and len(found) < count:
            first = windows[0].frame - stretch.start_frame
            name = f"{stretch.recording} at {windows[0].frame * seconds_per_frame:.1f} s"
            found[name] = stretch.log_mel[first : first + frames], texts.spec.alphabet.text(windows[0].text)
    if not found:
        return []
    log_mels, wanted = zip(*found.values(), strict=True)
    return alignments(model, dict(zip(found, log_mels, strict=True)), wanted)


def finished(found: Sequence[Mapping[str, Any]]) -> float:
    """Share of :func:`alignments` whose text is read to its end.

    >>> finished([{"symbols": ["a", "t"], "weights": [[0.9, 0.1], [0.2, 0.8]]}])
    1.0
    """
    return float(np.mean([np.argmax(item["weights"][-1]) == len(item["symbols"]) - 1 for item in found]))
