"""Lay out the model before its tiers are trained: models/melnet.json.

It holds what all tiers share: mel spectrogram, normalisation, names of the tiers and of the singers. Each tier is then
trained by itself (stages.train), so that changing one tier leaves the others as they are. Files of tiers that
model.tiers no longer names are removed.
"""

import re
import time

from melnet.data.dataset import Normalisation
from melnet.data.shards import Shards
from melnet.saved import ModelConfig, save_config
from stages.command import StageError, main
from stages.corpus.singers import known_singers
from stages.parameters import Params
from stages.paths import METRICS, MODELS, PLOTS, SHARDS

TIER_FOLDERS = (MODELS, MODELS / "tiers", METRICS / "train", METRICS / "history", PLOTS / "training")


def model(params: Params) -> None:
    """Write ``melnet.json``; raise :class:`MelnetError` for unusable shards and recordings without a singer."""
    started = time.monotonic()
    spec = Shards(SHARDS / "train").spec
    settings = params.model
    if untaught := [name for name in settings.conditions if name != "singer"]:
        raise StageError(f"model.condition_on: {untaught[0]}: the corpus has tracks of it, but no model learns it yet")
    singers = known_singers(settings)
    config = ModelConfig(
        mel=spec.mel,
        frames=spec.frames,
        tiers=settings.tier_names,
        singers=singers,
        normalisation=Normalisation.read(SHARDS / "normalisation.json"),
        **settings.model_dump(include={"cell", "num_components", "min_sigma"}),
    )
    save_config(MODELS, config)
    _remove_other_tiers(config.tiers)
    known = f", {len(singers)} singers" if singers else ""
    print(
        f"{MODELS / 'melnet.json'}: {len(config.tiers)} tiers of {config.cell.upper()}s{known}; "
        f"{time.monotonic() - started:.0f} s"
    )


def _remove_other_tiers(tiers: list[str]) -> None:
    for folder in TIER_FOLDERS:
        for path in folder.glob("tier-*.*"):
            name = re.match(r"tier-\d+(?=\.)", path.name)
            if name and name[0] not in tiers:
                path.unlink()


if __name__ == "__main__":
    main(model, __doc__)
