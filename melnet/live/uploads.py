"""Recordings that listeners upload to be continued, and scores that they upload to be sung."""

from pathlib import Path

from melnet.audio.files import opened
from melnet.audio.integrity import UnusableAudio
from melnet.prime import PRIME_SECONDS, Prime, read_prime
from melnet.saved import ModelConfig
from melnet.score import NOTE_READERS, Score, ScoreError
from melnet.singing import Model

MOST_BYTES = 64 * 2**20
MOST_NOTES_BYTES = 2**20  # of a file of notes, which takes hundreds of times as much memory while it is read
MOST_SECONDS = 600.0


def most_frames(config: ModelConfig) -> int:
    """Length of the longest prime: the whole slices in :data:`~melnet.prime.PRIME_SECONDS`, and one at least."""
    slice_seconds = config.frames * config.mel.seconds_per_frame
    return max(1, int(PRIME_SECONDS / slice_seconds)) * config.frames


def read_upload(path: Path, config: ModelConfig) -> Prime:
    """The end of an uploaded recording, as many whole slices as there are, up to :func:`most_frames`.

    Each length of prime needs a compiled function of its own; of whole slices there are few.

    Raises
    ------
    UnusableAudio
        The recording cannot be read, is too long or too short, or ends in silence.
    """
    _check_seconds(path)
    prime = read_prime(path, most_frames(config) * config.mel.seconds_per_frame, config.mel, config.frames)
    frames = len(prime.log_mel) // config.frames * config.frames
    return Prime(prime.signal[-frames * config.mel.hop_length :], prime.log_mel[-frames:])


def read_uploaded_score(path: Path, model: Model, transpose: float) -> tuple[Score, str | None]:
    """An uploaded score, and a warning if it leaves the range of the recordings that the model learned from.

    Raises
    ------
    MelnetError
        The score cannot be read or is too long, or the model takes none; see
        :meth:`~melnet.singing.Model.read_score`.
    """
    if path.suffix not in NOTE_READERS:
        _check_seconds(path)
    elif path.stat().st_size > MOST_NOTES_BYTES:
        raise ScoreError(f"larger than {MOST_NOTES_BYTES // 2**20} MB, the most for notes")
    messages: list[str] = []
    score = model.read_score(path, transpose=transpose, on_warning=messages.append)
    if score.frames * model.config.mel.seconds_per_frame > MOST_SECONDS:
        raise ScoreError(f"longer than {MOST_SECONDS / 60:.0f} minutes")
    return score, next((without_path(text, path) for text in messages), None)


def without_path(message: str, path: Path) -> str:
    """A message about an upload without the path it has on this machine.

    >>> without_path("/tmp/upload.txt, line 3: expected a note", Path("/tmp/upload.txt"))
    'line 3: expected a note'
    """
    return message.removeprefix(f"{path}: ").removeprefix(f"{path}, ")


def _check_seconds(path: Path) -> None:
    """Refuse a recording that is too long, before anything of it is decoded."""
    with opened(path) as (_, sound):
        seconds = sound.frames / sound.samplerate
    if seconds > MOST_SECONDS:
        raise UnusableAudio(f"longer than {MOST_SECONDS / 60:.0f} minutes by its header; upload its end")
