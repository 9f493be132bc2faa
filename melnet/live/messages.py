"""Messages between the live page and its server: wishes in JSON, audio and spectrograms in bytes."""

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError


class Wish(BaseModel):
    """A listener's settings and how much audio may be sent; the page repeats it while it plays.

    >>> Wish.model_validate_json('{"temperature": 0.9, "top_components": null, "until": 48000}').until
    48000
    """

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    temperature: float = Field(ge=0, le=10)
    top_components: int | None = Field(ge=1)
    until: int = Field(ge=0)
    """samples that may have been sent, counted from the first: those that were heard and some that wait"""


class Start(Wish):
    """The first wish of a listener."""

    seed: int = Field(ge=0, lt=2**32)
    singer: str | None = None
    prime: str | None = None
    """name that the server gave an uploaded recording"""
    score: str | None = None
    """name that the server gave an uploaded score"""


class ScoreQuery(BaseModel):
    """The query with which a score is uploaded.

    >>> ScoreQuery.model_validate({"name": "song.mid", "transpose": "-2"}).transpose
    -2.0
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    name: str = ""
    """of the file; its suffix tells notes from a recording to follow"""
    transpose: float = 0.0
    """semitones"""


def problem(error: BaseException) -> str:
    """Describe an error in a message of the page in one line.

    >>> try:
    ...     Wish.model_validate_json('{"temperature": -1, "top_components": null, "until": 0}')
    ... except ValidationError as error:
    ...     print(problem(error))
    temperature: Input should be greater than or equal to 0
    """
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or 'message'}: {first['msg']}"


def chunk_bytes(audio: np.ndarray, log_mel: np.ndarray) -> bytes:
    """A chunk of audio (samples,) and the frames (frames, bands) drawn for it, little-endian.

    Two 32-bit integers, the numbers of samples and of frames, then both arrays as 32-bit floats.

    >>> len(chunk_bytes(np.zeros(6000), np.zeros((12, 32))))
    25544
    """
    lengths = np.array([len(audio), len(log_mel)], "<u4")
    return lengths.tobytes() + audio.astype("<f4").tobytes() + log_mel.astype("<f4").tobytes()
