"""Texts of utterances, in one Parquet file, ``texts.parquet``: a row per utterance, with the frame at which it begins.

A text is a sequence of symbols, phonemes or characters. It has no times but the utterance's beginning; which frames
belong to which symbol is for the model to find (:mod:`melnet.model.text`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter, ValidationError

from melnet.audio.mel import MelSpec
from melnet.data.atomic import atomic_write
from melnet.data.labels.label import Label, Unit
from melnet.data.labels.text import characters
from melnet.errors import MelnetError

FILE = "texts.parquet"
METADATA_KEY = b"melnet"
SILENCES = ("pau", "sil", "sp", "SP")
"""names of silence among phonemes"""
RESTS = (*SILENCES, "br", "ap", "AP")
"""names of silence and breath among phonemes"""
GAP_SECONDS = 0.2  # a stretch of so long without a label is a silence
SCHEMA = pa.schema([("recording", pa.string()), ("frame", pa.int32()), ("text", pa.list_(pa.int32()))])


class TextsError(MelnetError):
    """Texts cannot be used; the message names the file, or the symbol that is not known."""


class Utterance(NamedTuple):
    """Words that are said or sung without a silence inside."""

    frame: int
    """of the recording's spectrogram, at which it begins, with the silence before it"""
    text: np.ndarray
    """int32 (symbols,), indices of symbols, counted from 1"""


@dataclass(frozen=True)
class Alphabet:
    """The symbols of the texts of a corpus, sorted; symbol ``i`` has the index ``i + 1``.

    >>> Alphabet("phonemes", ("a", "pau", "t"), symbols_per_second=4.0).indices("t a").tolist()
    [2, 3, 1, 2]
    >>> Alphabet("characters", (" ", "a", "h"), symbols_per_second=9.0).indices("A  ha").tolist()
    [2, 1, 3, 2]
    """

    unit: Unit
    """what the symbols are"""
    names: tuple[str, ...]
    symbols_per_second: float
    """how fast the texts are read: the mean of the corpus"""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    @property
    def size(self) -> int:
        """How many indices there are: one more than names, since 0 is what follows a text."""
        return len(self.names) + 1

    def indices(self, text: str) -> np.ndarray:
        """Indices of the symbols of a text, int32 (symbols,); phonemes are separated by spaces.

        A text of phonemes begins and ends with silence, if the corpus has a name for it, since its utterances do.

        Raises
        ------
        TextsError
            A symbol is not in the corpus, or there is none.
        """
        names = text.split() if self.unit == "phonemes" else characters(text)
        if self.unit == "characters" and " " not in self.names:
            names = [name for name in names if name != " "]
        if not names:
            raise TextsError(f"text: {text!r} has no {self.unit}")
        if unknown := next((name for name in names if name not in self.names), None):
            raise TextsError(f"text: {unknown!r} is none of the model's {self.unit}: {' '.join(self.names)}")
        silence = next((rest for rest in RESTS if rest in self.names), None)
        if self.unit == "phonemes" and silence:
            names = names if names[0] in RESTS else [silence, *names]
            names = names if names[-1] in RESTS else [*names, silence]
        return np.array([self.names.index(name) + 1 for name in names], np.int32)

    def spell(self, indices: np.ndarray) -> list[str]:
        """The names of the symbols of a text, without what follows it."""
        return [self.names[index - 1] for index in indices.tolist() if index]

    def text(self, indices: np.ndarray) -> str:
        """The text that has these indices."""
        return (" " if self.unit == "phonemes" else "").join(self.spell(indices))

    def batch(self, texts: Sequence[str], count: int) -> np.ndarray:
        """Indices of ``count`` texts, which take turns; int32 (count, symbols of the longest), followed by zeros.

        >>> Alphabet("characters", ("a", "h"), symbols_per_second=9.0).batch(["ah", "a"], count=3).tolist()
        [[1, 2], [1, 0], [1, 2]]
        """
        found = [self.indices(text) for text in texts]
        return padded(found, max(len(text) for text in found))[np.arange(count) % len(found)]


def padded(texts: Sequence[np.ndarray], symbols: int) -> np.ndarray:
    """Texts as one array (texts, symbols), each followed by zeros.

    >>> padded([np.array([3, 1]), np.array([2])], symbols=2).tolist()
    [[3, 1], [2, 0]]
    """
    return np.stack([np.pad(text, (0, symbols - len(text))) for text in texts])


@dataclass(frozen=True)
class TextSpec:
    """How the texts of a file were made; kept in its metadata."""

    sample_rate: int
    hop_length: int
    alphabet: Alphabet
    version: Literal[1] = 1

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}


_SPEC = TypeAdapter(TextSpec)


def utterances(labels: Sequence[Label]) -> list[list[Label]]:
    """Labels of a recording by utterance: each begins with the silence before it, and ends before the next.

    >>> names = ["pau", "a", "t", "pau", "br", "i"]
    >>> found = utterances([Label(at, at + 1, name) for at, name in enumerate(names)])
    >>> ["".join(label.name for label in labels) for labels in found]
    ['pauat', 'paubri']
    """
    found: list[list[Label]] = []
    for label in labels:
        before = found[-1][-1] if found else None
        silent = label.name in RESTS and (before is None or before.name not in RESTS)
        if before is None or silent or label.start - before.end > GAP_SECONDS:
            found.append([])
        found[-1].append(label)
    return [labels for labels in found if any(label.name not in RESTS for label in labels)]


def alphabet_of(unit: Unit, labelled: Iterable[Sequence[Label]]) -> Alphabet:
    """The names of all labels of the recordings, and how many there are in a second.

    >>> alphabet_of("phonemes", [[Label(0.0, 0.3, "t"), Label(0.3, 0.5, "a")]])
    Alphabet(unit='phonemes', names=('a', 't'), symbols_per_second=4.0)
    """
    names: set[str] = set()
    count, seconds = 0, 0.0
    for labels in labelled:
        names.update(label.name for label in labels)
        count += len(labels)
        seconds += sum(label.end - label.start for label in labels)
    return Alphabet(unit, tuple(sorted(names)), round(count / max(seconds, 1e-3), 4))


def utterances_at(labels: Sequence[Label], seconds: np.ndarray, alphabet: Alphabet) -> list[Utterance]:
    """The utterances of a recording, whose frames lie at ``seconds`` (frames,) of the time of the labels.

    >>> alphabet = Alphabet("phonemes", ("a", "pau"), symbols_per_second=2.0)
    >>> labels = [Label(0.0, 0.1, "pau"), Label(0.1, 0.4, "a")]
    >>> [(found.frame, found.text.tolist()) for found in utterances_at(labels, np.arange(4) * 0.1, alphabet)]
    [(0, [2, 1])]
    """
    index = {name: at + 1 for at, name in enumerate(alphabet.names)}
    return [
        Utterance(int(np.searchsorted(seconds, own[0].start)), np.array([index[x.name] for x in own], np.int32))
        for own in utterances(labels)
    ]


def write_texts(folder: Path, spec: TextSpec, texts: Iterable[tuple[str, Sequence[Utterance]]]) -> int:
    """Write the utterances of recordings, in their order, into a folder; returns how many there are.

    >>> from tempfile import TemporaryDirectory
    >>> spec = TextSpec(24000, 512, Alphabet("phonemes", ("a", "t"), symbols_per_second=4.0))
    >>> with TemporaryDirectory() as folder:
    ...     written = write_texts(Path(folder), spec, [("song.wav", [Utterance(50, np.array([2, 1]))])])
    ...     Texts(Path(folder)).of("song.wav")[0].text.tolist()
    [2, 1]
    """
    rows = [(name, found.frame, found.text.tolist()) for name, own in texts for found in own]
    columns = list(zip(*rows, strict=True)) or [(), (), ()]
    table = pa.table([pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)], SCHEMA)
    with atomic_write(folder / FILE) as temporary:
        table = table.replace_schema_metadata({METADATA_KEY: _SPEC.dump_json(spec)})
        pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)
    return len(rows)


class Texts:
    """The texts of a folder, by recording.

    Raises
    ------
    TextsError
        The file is missing, damaged or of another kind.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        try:
            table = pq.ParquetFile(self.path, page_checksum_verification=True).read()
        except FileNotFoundError as error:
            raise TextsError(f"{self.path}: no such file; the stage tracks makes it") from error
        except (pa.ArrowException, OSError) as error:
            raise TextsError(f"{self.path}: damaged or not a Parquet file: {str(error).splitlines()[0]}") from error
        try:
            self.spec = _SPEC.validate_json((table.schema.metadata or {})[METADATA_KEY])
        except (KeyError, ValidationError) as error:
            raise TextsError(f"{self.path}: not a file of texts of this version; run the stage tracks again") from error
        self._by_recording: dict[str, list[Utterance]] = {}
        for row in table.to_pylist():
            utterance = Utterance(row["frame"], np.array(row["text"], np.int32))
            self._by_recording.setdefault(row["recording"], []).append(utterance)

    def check(self, mel: MelSpec) -> None:
        """Raise :class:`TextsError` if spectrograms have other frames than the texts."""
        if (mel.sample_rate, mel.hop_length) != (self.spec.sample_rate, self.spec.hop_length):
            raise TextsError(
                f"{self.path}: frames every {self.spec.hop_length} samples at {self.spec.sample_rate} Hz, but the "
                f"spectrograms have them every {mel.hop_length} at {mel.sample_rate} Hz; run the stage tracks again"
            )

    def of(self, recording: str) -> list[Utterance]:
        """The utterances of a recording, in order; none if it has no text."""
        return self._by_recording.get(recording, [])

    def windows(self, recording: str, first: int, length: int, frames: int) -> list[Utterance]:
        """Windows of ``frames`` frames that begin with an utterance and lie in the frames [first, first + length).

        Each has the texts of all utterances that begin in it, the last of which may go on after its end.
        """
        own = [found for found in self.of(recording) if first <= found.frame < first + length]
        fitting = [found for found in own if found.frame + frames <= first + length]
        inside = [[other.text for other in own if 0 <= other.frame - found.frame < frames] for found in fitting]
        return [Utterance(found.frame, np.concatenate(texts)) for found, texts in zip(fitting, inside, strict=True)]
