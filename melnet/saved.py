"""A trained model on disk, and what each file of it is for.

``melnet.json`` is what all tiers share: how spectrograms are made and normalised, which tiers and singers there are. It
is written before training. Each tier then adds its weights, ``tier-1.weights.h5``, and ``tiers/tier-1.json``: its
settings, the hash of its weights, and the hash of the ``melnet.json`` it was trained for. Changing the settings of one
tier so changes the files of that tier only.

Nothing but these files is needed to generate audio. They hold numbers and settings, no code.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from melnet.data.atomic import written
from melnet.data.dataset import Normalisation
from melnet.model.multiscale import TierIndex, shape
from melnet.model.tier import Tier
from stages.parameters import Mel, Model
from stages.parameters import Tier as TierSettings

FORMAT = 2
T = TypeVar("T")


class ModelError(ValueError):
    """A model that cannot be read; the message names the file."""


@dataclass(frozen=True)
class Description:
    """The content of ``melnet.json``."""

    sample_rate: int
    frames: int
    """frames of the slices that are trained on"""
    mel: Mel
    cell: str
    mixture: int
    min_sigma: float
    tiers: list[str]
    """names in ``model.tiers``, in order"""
    singers: list[str]
    """those the model knows, in the order of its embedding; none if it is not conditioned on them"""
    normalisation: Normalisation

    @classmethod
    def of(
        cls,
        model: Model,
        *,
        sample_rate: int,
        frames: int,
        mel: Mel,
        singers: list[str],
        normalisation: Normalisation,
    ) -> "Description":
        """Of the settings of a model and of the data that it is for."""
        return cls(
            sample_rate=sample_rate,
            frames=frames,
            mel=mel,
            cell=model.cell,
            mixture=model.mixture,
            min_sigma=model.min_sigma,
            tiers=model.tier_names,
            singers=singers if model.condition_on == "singer" else [],
            normalisation=normalisation,
        )

    def tier_index(self, tier: str) -> TierIndex:
        """The number of a tier, given by its name, and the number of tiers."""
        return TierIndex(self.tiers.index(tier) + 1, len(self.tiers))

    def to_json(self) -> str:
        """What stands in ``melnet.json``."""
        content = asdict(self) | {"mel": self.mel.model_dump(), "normalisation": self.normalisation.to_dict()}
        return json.dumps({"format": FORMAT, **content}, indent=2) + "\n"

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Description":
        """Read and check what :meth:`to_json` wrote; raises ValueError, TypeError or KeyError for anything else."""
        values = {key: value for key, value in content.items() if key != "format"}
        mel = Mel.model_validate(values.pop("mel"))
        normalisation = Normalisation.from_dict(values.pop("normalisation"))
        description = cls(mel=mel, normalisation=normalisation, **values)
        # The same checks as of params.yaml; what is left to each tier is checked with its own file.
        names = dict.fromkeys(description.tiers, TierSettings(layers=1, hidden=1))
        conditioned = {"condition_on": "singer" if description.singers else None}
        shared = {key: values[key] for key in ("cell", "mixture", "min_sigma")}
        Model.model_validate({**shared, **conditioned, "tiers": names})
        if normalisation.mean.shape != (mel.n_mels,):
            raise ValueError(f"normalisation: {len(normalisation.mean)} bands, but mel.n_mels is {mel.n_mels}")
        return description


def weights_path(folder: Path, tier: str) -> Path:
    """Where the weights of a tier, named as in ``model.tiers``, lie."""
    return folder / f"{tier}.weights.h5"


def settings_path(folder: Path, tier: str) -> Path:
    """Where the settings of a tier lie."""
    return folder / "tiers" / f"{tier}.json"


def build_tier(description: Description, tier: str, settings: TierSettings, *, recompute: bool = False) -> Tier:
    """A tier of the described model with initial weights; ``recompute`` as in :class:`melnet.model.tier.Tier`."""
    index = description.tier_index(tier)
    return Tier(
        bands=shape(index.number, index.count, description.frames, description.mel.n_mels).bands,
        layers=settings.layers,
        hidden=settings.hidden,
        num_components=description.mixture,
        min_sigma=description.min_sigma,
        cell=description.cell,
        feature_layers=0 if index.number == 1 else settings.feature_layers or settings.layers,
        singers=len(description.singers),
        recompute=recompute,
        name=tier.replace("-", "_"),
    )


def save_description(folder: Path, description: Description) -> None:
    """Write ``melnet.json``; it appears complete or not at all."""
    with written(folder / "melnet.json") as temporary:
        temporary.write_text(description.to_json(), encoding="utf-8")


def save_tier(folder: Path, description: Description, name: str, settings: TierSettings, tier: Tier) -> None:
    """Write the weights of a tier, then its settings with their hash; each appears complete or not at all."""
    # A compiled tier would save its optimizer too, which is twice as much again.
    plain = build_tier(description, name, settings)
    plain.set_weights(tier.get_weights())
    # HDF5 ends the process when the disk is full.
    with written(weights_path(folder, name), needed=8 * plain.count_params() + 2**20) as temporary:
        plain.save_weights(temporary, overwrite=True)
        digest = hashlib.sha256(temporary.read_bytes()).hexdigest()
    content = {
        "format": FORMAT,
        **settings.model_dump(),
        "weights_sha256": digest,
        "melnet_sha256": _digest(description),
    }
    with written(settings_path(folder, name)) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def load_description(folder: Path) -> Description:
    """Read ``melnet.json``; raises :class:`ModelError` if it is missing, damaged or of another format version."""
    return _read(folder / "melnet.json", "the stage `model` makes it", Description.from_dict)


def load(folder: Path) -> tuple[Description, list[Tier]]:
    """Read a model back, its first tier first.

    Raises
    ------
    ModelError
        If a file is missing, damaged, of another format version, or not of the model that the others are of.
    """
    description = load_description(folder)
    return description, [_load_tier(folder, description, name) for name in description.tiers]


def _load_tier(folder: Path, description: Description, name: str) -> Tier:
    path = settings_path(folder, name)

    def parse(content: dict[str, Any]) -> tuple[TierSettings, str, str]:
        weights, melnet = content.pop("weights_sha256"), content.pop("melnet_sha256")
        content.pop("format")
        return TierSettings.model_validate(content), weights, melnet

    settings, weights, melnet = _read(path, "the stage `train` makes it", parse)
    if melnet != _digest(description):
        raise ModelError(f"{path}: trained for another {folder / 'melnet.json'}; train the tier again")
    path = weights_path(folder, name)
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}; {settings_path(folder, name)} names it") from error
    if found != weights:
        raise ModelError(f"{path}: damaged, or not the weights that {settings_path(folder, name)} was saved with")
    tier = build_tier(description, name, settings)
    try:
        tier.load_weights(path)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{path}: not the weights of {settings}: {str(error).splitlines()[0]}") from error
    return tier


def _read(path: Path, made_by: str, parse: Callable[[dict[str, Any]], T]) -> T:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = content["format"]
        if found != FORMAT:
            raise ModelError(f"{path}: format {found}, but this version reads format {FORMAT}; train again")
        return parse(content)
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such file; {made_by}") from error
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"])
        raise ModelError(f"{path}: not understood: {key}: {problem['msg']}") from error
    except ModelError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path}: not understood: {type(error).__name__} {error}") from error


def _digest(description: Description) -> str:
    return hashlib.sha256(description.to_json().encode()).hexdigest()
