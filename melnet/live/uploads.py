"""Recordings that listeners upload to be continued."""

from pathlib import Path

from melnet.audio.files import opened
from melnet.audio.integrity import UnusableAudio
from melnet.prime import PRIME_SECONDS, Prime, read_prime
from melnet.saved import ModelConfig

MOST_BYTES = 64 * 2**20
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
        The recording cannot be read, is too long or too short, or ends in silence; the message does not name it.
    """
    try:
        with opened(path) as (_, sound):
            seconds = sound.frames / sound.samplerate
        if seconds > MOST_SECONDS:  # before anything of it is decoded
            raise UnusableAudio(f"longer than {MOST_SECONDS / 60:.0f} minutes by its header; upload its end")
        most = most_frames(config)
        prime = read_prime(path, most * config.mel.seconds_per_frame, config.mel, config.frames)
    except UnusableAudio as error:
        raise UnusableAudio(str(error).removeprefix(f"{path}: ")) from error
    frames = len(prime.log_mel) // config.frames * config.frames
    return Prime(prime.signal[-frames * config.mel.hop_length :], prime.log_mel[-frames:])
