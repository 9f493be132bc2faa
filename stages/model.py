"""Lay out the model before its tiers are trained: models/melnet.json.

It holds what all tiers share: mel spectrogram, normalisation, names of the tiers and of the singers, and what the model
is told of each frame (model.condition_on, model.lookahead). Each tier is then trained by itself (stages.train), so that
changing one tier leaves the others as they are. Files of tiers that model.tiers no longer names are removed.
"""

import re
import time

from melnet.data.dataset import Normalisation
from melnet.data.shards import Shards
from melnet.data.texts import Texts
from melnet.data.tracks import CONDITIONS, Tracks
from melnet.saved import FrameConditioning, ModelConfig, save_config
from stages.command import main
from stages.corpus.singers import known_singers
from stages.parameters import Model, Params
from stages.paths import METRICS, MODELS, PLOTS, SHARDS, TRACKS

TIER_FOLDERS = (MODELS, MODELS / "tiers", METRICS / "train", METRICS / "history", PLOTS / "training")


def model(params: Params) -> None:
    """Write ``melnet.json``; raise :class:`MelnetError` for unusable shards and recordings without a singer."""
    started = time.monotonic()
    spec = Shards(SHARDS / "train").spec
    settings = params.model
    singers = known_singers(settings)
    config = ModelConfig(
        mel=spec.mel,
        frames=spec.frames,
        tiers=settings.tier_names,
        singers=singers,
        normalisation=Normalisation.read(SHARDS / "normalisation.json"),
        frame_conditioning=_frame_conditioning(settings),
        alphabet=Texts(TRACKS).spec.alphabet if "text" in settings.conditions else None,
        **settings.model_dump(include={"cell", "num_components", "min_sigma"}),
    )
    save_config(MODELS, config)
    _remove_other_tiers(config.tiers)
    known = f", {len(singers)} singers" if singers else ""
    if told := config.frame_conditioning:
        known += f", told {' and '.join(told.conditions)}"
    if alphabet := config.alphabet:
        known += f", reads texts of {len(alphabet.names)} {alphabet.unit}"
    print(
        f"{MODELS / 'melnet.json'}: {len(config.tiers)} tiers of {config.cell.upper()}s{known}; "
        f"{time.monotonic() - started:.0f} s"
    )


def _frame_conditioning(settings: Model) -> FrameConditioning | None:
    conditions = tuple(name for name in CONDITIONS if name in settings.conditions)
    if not conditions:
        return None
    spec = Tracks(TRACKS, conditions).spec
    return FrameConditioning(conditions, settings.lookahead, spec.vocabulary, spec.range_hz)


def _remove_other_tiers(tiers: list[str]) -> None:
    for folder in TIER_FOLDERS:
        for path in folder.glob("tier-*.*"):
            name = re.match(r"tier-\d+(?=\.)", path.name)
            if name and name[0] not in tiers:
                path.unlink()


if __name__ == "__main__":
    main(model, __doc__)
