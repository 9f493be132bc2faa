"""A digest of everything a stage depends on, by which an interrupted run knows its own unfinished work."""

import hashlib
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import keras
from pydantic import BaseModel
from ruamel.yaml import YAML

PIPELINE = Path("dvc.yaml")
# Their versions can change the numbers a training arrives at.
LIBRARIES = ("keras", "tensorflow", "numpy")


def fingerprint(stage: str, sections: list[BaseModel], files: Sequence[Path] = ()) -> str:
    """Hash the files that ``dvc.yaml`` names as a stage's dependencies, its parameters and the libraries.

    ``files`` stand for those dependencies that a setting names.
    """
    digest = hashlib.sha256(f"python {sys.version_info[:2]}".encode())
    backend = keras.backend.backend()  # each has kernels and random numbers of its own
    for library in sorted({*LIBRARIES, backend}):
        digest.update(f"{library} {version(library)}\n".encode())
    digest.update(f"{backend}\n".encode())
    for section in sections:
        digest.update(f"{type(section).__name__} {section.model_dump_json()}\n".encode())
    named = [Path(name) for name in YAML(typ="safe").load(PIPELINE)["stages"][stage]["deps"] if "${" not in name]
    for path in (path for dependency in [*named, *files] for path in _files(dependency)):
        digest.update(f"{path.as_posix()}\n".encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
