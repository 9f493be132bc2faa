"""A trained vocoder on disk: ``vocoder.json`` and ``vocoder.weights.h5``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import keras
from pydantic import TypeAdapter

from melnet.audio.mel import MelSpec
from melnet.data.atomic import write_json
from melnet.model_files import FORMAT, STRICT, ModelError, load_weights, read_settings, save_weights
from melnet.vocoder.config import VocoderConfig
from melnet.vocoder.networks import EnvelopeNetwork, PitchNetwork, build
from melnet.vocoder.synthesis import Vocoder

Inversion = Literal["vocoder", "griffin-lim"]
"""a way from a spectrogram to audio"""
VOCODER: Inversion = "vocoder"
GRIFFIN_LIM: Inversion = "griffin-lim"


@dataclass(frozen=True)
class SavedVocoder:
    """The content of ``vocoder.json``, but for the hash of the weights."""

    config: VocoderConfig
    preferred: Inversion
    """the inversion that does better on the validation split"""

    __pydantic_config__: ClassVar[Any] = STRICT


_SAVED = TypeAdapter(SavedVocoder)


class _Networks(keras.Model):
    """Both networks, to be saved in one file."""

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__(name="vocoder")
        self.pitch = build(PitchNetwork(config), config)
        self.envelopes = build(EnvelopeNetwork(config), config)
        self.built = True


def settings_path(folder: Path) -> Path:
    """Path of the settings of the vocoder.

    >>> settings_path(Path("models")).as_posix()
    'models/vocoder.json'
    """
    return folder / "vocoder.json"


def save_vocoder(folder: Path, vocoder: Vocoder, preferred: Inversion) -> None:
    """Write the weights, then the settings with the weights' hash; both atomically."""
    networks = _Networks(vocoder.config)
    networks.pitch.set_weights(vocoder.pitch.get_weights())
    networks.envelopes.set_weights(vocoder.envelopes.get_weights())
    digest = save_weights(folder / "vocoder.weights.h5", networks)
    saved = _SAVED.dump_python(SavedVocoder(vocoder.config, preferred))
    write_json(settings_path(folder), {"format": FORMAT, **saved, "weights_sha256": digest})


def load_vocoder(folder: Path, mel: MelSpec, singers: list[str]) -> tuple[Vocoder, Inversion]:
    """Read a vocoder for spectrograms and singers of a model, and which inversion is preferred.

    Raises
    ------
    ModelError
        A file is missing, damaged or of another format version, or the vocoder is that of another model.
    """
    path = settings_path(folder)
    saved, hashes = read_settings(path, _SAVED, "weights_sha256")
    if saved.config.mel != mel:
        raise ModelError(f"{path}: for spectrograms of {saved.config.mel}, but the model makes {mel}; train it again")
    if saved.config.singers != singers:
        known = ", ".join(saved.config.singers) or "none"
        raise ModelError(f"{path}: for the singers {known}, but the model has {', '.join(singers) or 'none'}")
    networks = _Networks(saved.config)
    load_weights(folder / "vocoder.weights.h5", networks, hashes["weights_sha256"], path, "this vocoder")
    return Vocoder(saved.config, networks.pitch, networks.envelopes), saved.preferred
