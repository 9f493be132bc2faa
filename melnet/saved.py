"""A trained model on disk: ``melnet.json``, which says everything needed to use it, and one weights file per tier.

Nothing but these files is needed to generate audio. They hold numbers and settings, no code.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from melnet.config import Mel, Model
from melnet.dataset import Normalisation
from melnet.files import written
from melnet.model.tier import Tier

FORMAT = 1


class ModelError(ValueError):
    """A model that cannot be read; the message names the file."""


@dataclass(frozen=True)
class Description:
    """The content of ``melnet.json``."""

    sample_rate: int
    mel: Mel
    model: Model
    frames: int
    """frames of the slices that were trained on"""
    normalisation: Normalisation

    def to_dict(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "sample_rate": self.sample_rate,
            "frames": self.frames,
            "mel": self.mel.model_dump(),
            "model": self.model.model_dump(),
            "normalisation": self.normalisation.to_dict(),
        }


def weights_path(folder: Path, tier: str) -> Path:
    """Where the weights of a tier, named as in ``model.tiers``, lie."""
    return folder / f"{tier}.weights.h5"


def build_tier(model: Model, tier: str, bands: int) -> Tier:
    """A tier of the described model with initial weights."""
    settings = model.tiers[tier]
    return Tier(
        bands=bands,
        layers=settings.layers,
        hidden=settings.hidden,
        components=model.mixture,
        min_sigma=model.min_sigma,
        name=tier.replace("-", "_"),
    )


def save(folder: Path, description: Description, tiers: dict[str, Tier]) -> None:
    """Write the weights, then ``melnet.json`` with their hashes; each appears complete or not at all."""
    hashes = {}
    for name, tier in tiers.items():
        # A compiled tier would save its optimizer too, which is twice as much again.
        plain = build_tier(description.model, name, description.mel.n_mels)
        plain.set_weights(tier.get_weights())
        # HDF5 ends the process when the disk is full.
        with written(weights_path(folder, name), needed=8 * plain.count_params() + 2**20) as temporary:
            plain.save_weights(temporary, overwrite=True)
            hashes[name] = hashlib.sha256(temporary.read_bytes()).hexdigest()
    with written(folder / "melnet.json") as temporary:
        content = {**description.to_dict(), "weights_sha256": hashes}
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def load(folder: Path) -> tuple[Description, dict[str, Tier]]:
    """Read a model back.

    Raises
    ------
    ModelError
        If a file is missing, is of another format version, or the weights are not those the JSON was saved with.
    """
    path = folder / "melnet.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ModelError(f"{path}: format {content['format']}, but this version reads format {FORMAT}; train again")
        description = Description(
            sample_rate=content["sample_rate"],
            mel=Mel.model_validate(content["mel"]),
            model=Model.model_validate(content["model"]),
            frames=content["frames"],
            normalisation=Normalisation.from_dict(content["normalisation"]),
        )
        hashes = content["weights_sha256"]
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such file; the stage `train` makes it") from error
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, ValidationError) as error:
        raise ModelError(f"{path}: not a model description: {' '.join(str(error).split())}") from error
    return description, {
        name: _load_tier(folder, description, name, hashes.get(name)) for name in description.model.tiers
    }


def _load_tier(folder: Path, description: Description, name: str, expected: str | None) -> Tier:
    path = weights_path(folder, name)
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such file, but {folder / 'melnet.json'} names it") from error
    if found != expected:
        raise ModelError(f"{path}: damaged, or not the weights that {folder / 'melnet.json'} was saved with")
    tier = build_tier(description.model, name, description.mel.n_mels)
    tier.load_weights(path)
    return tier
