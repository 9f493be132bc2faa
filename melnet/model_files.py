"""Reading and writing the files of a model: settings in JSON with a format version, weights with a hash."""

import hashlib
import json
from pathlib import Path
from typing import Any, TypeVar

import keras
from pydantic import TypeAdapter, ValidationError

from melnet.data.atomic import atomic_write
from melnet.errors import MelnetError

FORMAT = 3
STRICT: dict[str, Any] = {"extra": "forbid", "strict": True}
T = TypeVar("T")


class ModelError(MelnetError):
    """A model cannot be read; the message names the file."""


def read_settings(path: Path, config: TypeAdapter[T], *others: str) -> tuple[T, dict[str, Any]]:
    """Read a configuration, and the values of ``others``, which stand beside it; raises :class:`ModelError`."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if (found := content.pop("format")) != FORMAT:
            raise ModelError(f"{path}: format {found}, but this version reads format {FORMAT}; train again")
        values = {name: content.pop(name) for name in others}
        return config.validate_json(json.dumps(content)), values
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such file; the model is not trained yet, or incomplete") from error
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"])
        raise ModelError(f"{path}: not understood: {key}: {problem['msg']}") from error
    except ModelError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path}: not understood: {type(error).__name__} {error}") from error


def save_weights(path: Path, model: keras.Model) -> str:
    """Write the weights of a model atomically, and return the SHA-256 of the file."""
    # HDF5 ends the process when the disk is full.
    with atomic_write(path, needed=8 * model.count_params() + 2**20) as temporary:
        model.save_weights(temporary, overwrite=True)
        return hashlib.sha256(temporary.read_bytes()).hexdigest()


def load_weights(path: Path, model: keras.Model, sha256: str, named_by: Path, of: str) -> None:
    """Read the weights of a model.

    Parameters
    ----------
    sha256
        Of the file, as ``named_by`` has it.
    of
        Describes the model, for messages.

    Raises
    ------
    ModelError
        The file is missing, another one, damaged, or does not fit the model.
    """
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}; {named_by} names it") from error
    if found != sha256:
        raise ModelError(f"{path}: damaged, or not the weights that {named_by} was saved with")
    try:
        model.load_weights(path)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{path}: not the weights of {of}: {str(error).splitlines()[0]}") from error
