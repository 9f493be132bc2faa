"""Lay out the model before its tiers are trained: models/melnet.json.

It says what all tiers share: mel spectrogram, normalisation, which tiers there are and which singers. Each tier is then
trained for it by itself (stages.train), so that changing one tier leaves the others as they are. What was made of tiers
that model.tiers no longer names is removed.
"""

import json
import re
import time
from pathlib import Path

from melnet.data.dataset import Normalisation
from melnet.data.shards import ShardError, Shards
from melnet.saved import Description, save_description
from stages.command import METRICS, MODELS, SHARDS, StageError, main
from stages.parameters import Params

OF_TIERS = (MODELS, MODELS / "tiers", METRICS / "train", METRICS / "history", Path("plots/training"))


def model(params: Params) -> None:
    """Write the description; raise :class:`StageError` for unusable shards and recordings of no known singer."""
    started = time.monotonic()
    try:
        settings = Shards(SHARDS / "train").settings
    except ShardError as error:
        raise StageError(str(error)) from error
    singers: list[str] = json.loads((SHARDS / "singers.json").read_text(encoding="utf-8"))["singers"]
    if params.model.condition_on == "singer" and "" in singers:
        raise StageError(
            "model.condition_on: singer, but recordings lie directly in corpus.path: the first folder below it names "
            "the singer"
        )
    description = Description.of(
        params.model,
        sample_rate=settings.sample_rate,
        frames=settings.frames,
        mel=settings.mel,
        singers=singers,
        normalisation=Normalisation.read(SHARDS / "normalisation.json"),
    )
    save_description(MODELS, description)
    _remove_others(description.tiers)
    known = f", {len(description.singers)} singers" if description.singers else ""
    print(
        f"{MODELS / 'melnet.json'}: {len(description.tiers)} tiers of {params.model.cell.upper()}s{known}; "
        f"{time.monotonic() - started:.0f} s"
    )


def _remove_others(tiers: list[str]) -> None:
    for folder in OF_TIERS:
        for path in folder.glob("tier-*.*"):
            name = re.match(r"tier-\d+(?=\.)", path.name)
            if name and name[0] not in tiers:
                path.unlink()


if __name__ == "__main__":
    main(model, __doc__)
