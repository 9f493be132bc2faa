"""The weights of another model of the same shape, which a training starts from."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
from keras import ops

from melnet.model.tier import Tier
from melnet.model_files import ModelError
from melnet.saved import ModelConfig, load_config, load_tier

SHAPE = ("cell", "layers", "feature_layers", "hidden", "num_components")  # what decides on the weights of a tier


def start_from(folder: Path, tier: Tier, config: ModelConfig, name: str) -> list[str]:
    """Set a new tier to the weights that it has in another model.

    Singers that both models know keep their embeddings, whatever their ids. A new singer gets the mean of the
    embeddings in the other model, or a neutral one if that knows no singers. The weights apply to normalised values
    whatever they were normalised by, so the tier starts as the other model's voice, brought band by band to the mean
    and deviation of the new recordings: gain and equalisation of a recording make no difference.

    Parameters
    ----------
    folder
        Of the other model.
    tier, config, name
        The new tier, before its training, and the model that it belongs to.

    Returns
    -------
    Names of the singers whose embeddings are new.

    Raises
    ------
    ModelError
        A file of the other model cannot be read, or does not fit; the message names all that differs.

    >>> from dataclasses import replace
    >>> from tempfile import TemporaryDirectory
    >>> from melnet.audio.mel import MelSpec
    >>> from melnet.data.dataset import Normalisation
    >>> from melnet.saved import TierConfig, build_tier, save_config, save_tier
    >>> other = ModelConfig(
    ...     MelSpec(),
    ...     frames=10,
    ...     cell="gru",
    ...     num_components=1,
    ...     min_sigma=0.02,
    ...     tiers=["tier-1"],
    ...     singers=["anna"],
    ...     normalisation=Normalisation.identity(32),
    ... )
    >>> config, size = replace(other, singers=["anna", "bo"]), TierConfig(layers=1, hidden=2)
    >>> tier = build_tier(config, "tier-1", size, seed=2)
    >>> with TemporaryDirectory() as folder:
    ...     save_config(Path(folder), other)
    ...     save_tier(Path(folder), other, "tier-1", size, build_tier(other, "tier-1", size, seed=1))
    ...     start_from(Path(folder), tier, config, "tier-1")
    ['bo']
    """
    other = load_config(folder)
    mel, other_mel = asdict(config.mel), asdict(other.mel)
    differing = [(key, other_mel[key], value) for key, value in mel.items() if other_mel[key] != value]
    if len(other.tiers) != len(config.tiers):
        differing.append(("tiers", len(other.tiers), len(config.tiers)))
    if other.singers and not config.singers:
        differing.append(("singers", ", ".join(other.singers), "none"))
    if other.alphabet and (config.alphabet is None or other.alphabet.names != config.alphabet.names):
        differing.append(("symbols", " ".join(other.alphabet.names), "those of these texts"))
    _raise_if(differing, folder)

    given = load_tier(folder, other, name)
    shape, other_shape = tier.get_config(), given.get_config()
    _raise_if(
        [(f"{name}.{key}", other_shape[key], shape[key]) for key in SHAPE if other_shape[key] != shape[key]], folder
    )

    values = {variable.path: ops.convert_to_numpy(variable) for variable in given.variables}
    if other.singers:
        path = tier.embedding.embeddings.path
        values[path] = _embeddings(values[path], other.singers, config.singers)
    for variable in tier.variables:
        if variable.path in values:  # those of singers are missing where the other model knows none
            variable.assign(values[variable.path])
    return [singer for singer in config.singers if singer not in other.singers]


def _embeddings(given: np.ndarray, known: list[str], singers: list[str]) -> np.ndarray:
    """Embeddings (singers, hidden) of singers, from those of the known ones."""
    rows = dict(zip(known, given, strict=True))
    return np.stack([rows.get(singer, given.mean(axis=0)) for singer in singers])


def _raise_if(differing: list[tuple[str, object, object]], folder: Path) -> None:
    if differing:
        named = "; ".join(f"{key} {theirs}, not {ours}" for key, theirs, ours in differing)
        raise ModelError(f"{folder}: a model of another shape: {named}")
