"""A trained model on disk.

``melnet.json`` holds what all tiers share: how spectrograms are made and normalised, the tiers, the singers, what the
model is told of each frame. It is written before training. Each tier then adds its weights, ``tier-1.weights.h5``, and
``tiers/tier-1.json``: its settings, the hash of its weights, and the hash of the ``melnet.json`` it was trained for. So
a change to one tier's settings changes that tier's files only.

These files are all that generating audio needs. They hold numbers and settings, no code.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import keras
from pydantic import TypeAdapter

from melnet.audio.mel import MelSpec
from melnet.data.atomic import atomic_write, write_json
from melnet.data.dataset import Normalisation
from melnet.data.texts import Alphabet, Texts, TextsError
from melnet.data.tracks import Condition, Tracks, TracksError, Vocabulary
from melnet.model.multiscale import TierIndex, frame_rows, shape, tier_lookahead
from melnet.model.precision import Precision
from melnet.model.tier import Tier
from melnet.model_files import FORMAT, STRICT, ModelError, load_weights, read_settings, save_weights


@dataclass(frozen=True)
class TierConfig:
    """Size of one tier.

    >>> TierConfig(layers=4, hidden=64)
    TierConfig(layers=4, hidden=64, feature_layers=None)
    """

    layers: int
    """layers of each stack"""
    hidden: int
    """features and recurrent units of each layer"""
    feature_layers: int | None = None
    """layers of the feature-extraction network of a later tier; None: as many as ``layers``"""

    __pydantic_config__: ClassVar[Any] = STRICT


@dataclass(frozen=True)
class FrameConditioning:
    """What a model is told of each frame; see :class:`melnet.data.tracks.FrameTracks`."""

    conditions: tuple[Condition, ...]
    lookahead: int
    """frames of a spectrogram that it is told ahead"""
    vocabulary: Vocabulary
    """its phonemes"""
    range_hz: tuple[float, float] | None
    """pitches between which most of the melodies of the training data lie; None without any"""

    __pydantic_config__: ClassVar[Any] = STRICT


@dataclass(frozen=True)
class ModelConfig:
    """Settings that all tiers share; the content of ``melnet.json``."""

    mel: MelSpec
    frames: int
    """frames of a slice of the shards"""
    cell: Literal["lstm", "gru"]
    num_components: int
    """Gaussians per element of a spectrogram, K"""
    min_sigma: float
    """least standard deviation of a Gaussian, in units of a band's standard deviation"""
    tiers: list[str]
    """names of the tiers, the first tier first"""
    singers: list[str]
    """names in the order of the singer ids; empty if the model is not conditioned on singers"""
    normalisation: Normalisation
    frame_conditioning: FrameConditioning | None = None
    """None for a model that is told nothing of the frames"""
    alphabet: Alphabet | None = None
    """symbols of the texts that the first tier reads; None for a model that reads none"""

    __pydantic_config__: ClassVar[Any] = STRICT

    def __post_init__(self) -> None:
        expected = [f"tier-{number}" for number in range(1, len(self.tiers) + 1)]
        if not self.tiers or self.tiers != expected:
            raise ValueError(f"tiers: {', '.join(self.tiers)} should be {', '.join(expected)}")
        if self.normalisation.mean.shape != (self.mel.n_mels,):
            raise ValueError(f"normalisation: {len(self.normalisation.mean)} bands, but n_mels is {self.mel.n_mels}")

    def tier_index(self, name: str) -> TierIndex:
        """The index of a tier given by its name."""
        return TierIndex(self.tiers.index(name) + 1, len(self.tiers))

    def to_json(self) -> str:
        """The text of ``melnet.json``."""
        # Without conditions the file is the one that earlier versions wrote, and read.
        left_out = {name for name in ("frame_conditioning", "alphabet") if getattr(self, name) is None}
        return json.dumps({"format": FORMAT, **_CONFIG.dump_python(self, exclude=left_out)}, indent=2) + "\n"


_CONFIG = TypeAdapter(ModelConfig)
_TIER_CONFIG = TypeAdapter(TierConfig)


def weights_path(folder: Path, tier: str) -> Path:
    """Path of the weights of a tier.

    >>> weights_path(Path("models"), "tier-1").as_posix()
    'models/tier-1.weights.h5'
    """
    return folder / f"{tier}.weights.h5"


def tier_config_path(folder: Path, tier: str) -> Path:
    """Path of the settings of a tier.

    >>> tier_config_path(Path("models"), "tier-1").as_posix()
    'models/tiers/tier-1.json'
    """
    return folder / "tiers" / f"{tier}.json"


def build_tier(
    config: ModelConfig,
    name: str,
    tier_config: TierConfig,
    *,
    recompute: bool = False,
    precision: Precision = "float32",
    seed: int | None = None,
) -> Tier:
    """Build a tier of a model with initial weights.

    Parameters
    ----------
    recompute, precision
        See :class:`melnet.model.tier.Tier`.
    seed
        Of the initial weights, and of all that Keras draws after them.
    """
    if seed is not None:
        keras.utils.set_random_seed(seed)
    index, told = config.tier_index(name), config.frame_conditioning
    alphabet = config.alphabet if index.number == 1 else None
    seconds_per_frame = config.mel.seconds_per_frame * frame_rows(*index).step
    return Tier(
        bands=shape(*index, config.frames, config.mel.n_mels).bands,
        layers=tier_config.layers,
        hidden=tier_config.hidden,
        num_components=config.num_components,
        min_sigma=config.min_sigma,
        cell=config.cell,
        feature_layers=0 if index.number == 1 else tier_config.feature_layers or tier_config.layers,
        singers=len(config.singers),
        melody=told is not None and "melody" in told.conditions,
        phonemes=told.vocabulary.size if told and "phonemes" in told.conditions else 0,
        lookahead=tier_lookahead(*index, told.lookahead) if told else 0,
        text=alphabet.size if alphabet else 0,
        text_speed=alphabet.symbols_per_second * seconds_per_frame if alphabet else 0.0,
        recompute=recompute,
        precision=precision,
        name=name.replace("-", "_"),
    )


def read_tracks(config: ModelConfig, folder: Path) -> Tracks | None:
    """The tracks in a folder that a model is told; None for a model that is told none.

    Raises
    ------
    melnet.data.tracks.TracksError
        The file cannot be used, or has other phonemes than the model.
    """
    told = config.frame_conditioning
    if told is None:
        return None
    tracks = Tracks(folder, told.conditions, told.lookahead)
    tracks.check(config.mel)
    if "phonemes" in told.conditions and tracks.spec.vocabulary.names != told.vocabulary.names:
        raise TracksError(f"{tracks.path}: has other {told.vocabulary.unit} than the model; train again")
    return tracks


def read_texts(config: ModelConfig, folder: Path) -> Texts | None:
    """The texts in a folder that a model reads; None for a model that reads none.

    Raises
    ------
    melnet.data.texts.TextsError
        The file cannot be used, or has other symbols than the model.
    """
    if config.alphabet is None:
        return None
    texts = Texts(folder)
    texts.check(config.mel)
    if texts.spec.alphabet.names != config.alphabet.names:
        raise TextsError(f"{texts.path}: has other {config.alphabet.unit} than the model; train again")
    return texts


def save_config(folder: Path, config: ModelConfig) -> None:
    """Write ``melnet.json`` atomically."""
    with atomic_write(folder / "melnet.json") as temporary:
        temporary.write_text(config.to_json(), encoding="utf-8")


def save_tier(folder: Path, config: ModelConfig, name: str, tier_config: TierConfig, tier: Tier) -> None:
    """Write the weights of a tier, then its settings with the weights' hash; both atomically."""
    # A compiled tier would save its optimizer too, which is twice as large as the weights.
    plain = build_tier(config, name, tier_config)
    plain.set_weights(tier.get_weights())
    digest = save_weights(weights_path(folder, name), plain)
    hashes = {"weights_sha256": digest, "melnet_sha256": _digest(config)}
    write_json(tier_config_path(folder, name), {"format": FORMAT, **asdict(tier_config), **hashes})


def load_config(folder: Path) -> ModelConfig:
    """Read ``melnet.json``; raises :class:`ModelError` if it is missing, damaged or of another format version."""
    return read_settings(folder / "melnet.json", _CONFIG)[0]


def load(folder: Path, precision: Precision = "float32") -> tuple[ModelConfig, list[Tier]]:
    """Read a model back, its first tier first; ``precision`` is that of sampling, :mod:`melnet.model.precision`.

    Raises
    ------
    ModelError
        If a file is missing, damaged, of another format version, or belongs to another model than the other files.
    """
    config = load_config(folder)
    return config, [load_tier(folder, config, name, precision) for name in config.tiers]


def load_tier(folder: Path, config: ModelConfig, name: str, precision: Precision = "float32") -> Tier:
    """Read one tier of a model whose ``melnet.json`` is ``config``; raises :class:`ModelError` as :func:`load` does."""
    path = tier_config_path(folder, name)
    tier_config, hashes = read_settings(path, _TIER_CONFIG, "weights_sha256", "melnet_sha256")
    expected, melnet = hashes.values()
    if melnet != _digest(config):
        raise ModelError(f"{path}: trained for another {folder / 'melnet.json'}; train the tier again")
    tier = build_tier(config, name, tier_config, precision=precision)
    load_weights(weights_path(folder, name), tier, expected, path, str(tier_config))
    return tier


def _digest(config: ModelConfig) -> str:
    return hashlib.sha256(config.to_json().encode()).hexdigest()
