"""Synthesise the built-in corpus, songs of one singing voice: data/demo/song-*.wav.

Writes demo.files songs as 16-bit mono WAV at demo.sample_rate. Together they last demo.minutes and a little more, since
each ends with a whole phrase. The same settings give the same bytes; a song depends on its number, not on the others.
"""

import time
from pathlib import Path

import numpy as np
import soundfile as sf

from melnet.data.atomic import atomic_folder
from stages.command import main
from stages.demo_voice.voice import song
from stages.parameters import Demo, Params
from stages.progress import progress

DEMO = Path("data/demo")


def demo(params: Params) -> None:
    """Write ``data/demo``, complete or not at all."""
    started = time.monotonic()
    settings = params.demo
    print(f"{settings.files} songs of one voice, {settings.minutes:g} minutes at {settings.sample_rate} Hz", flush=True)
    digits = max(2, len(str(settings.files)))
    with atomic_folder(DEMO, needed=int(settings.minutes * 60 * settings.sample_rate * 2)) as folder:
        seconds = sum(
            write_song(folder / f"song-{number:0{digits}}.wav", settings, number)
            for number in progress(range(1, settings.files + 1), total=settings.files, label="demo", unit="files")
        )
    print(f"{settings.files} songs, {seconds / 60:.2f} minutes, in {DEMO}; {time.monotonic() - started:.0f} s")


def write_song(path: Path, settings: Demo, number: int) -> float:
    """Write song ``number`` phrase by phrase; return its length in seconds."""
    rng = np.random.default_rng((settings.seed, number))
    phrases = song(rng, settings.minutes * 60 / settings.files, settings.sample_rate)
    try:
        with sf.SoundFile(path, "w", settings.sample_rate, channels=1, subtype="PCM_16") as file:
            for phrase in phrases:
                file.write(phrase)
            return float(file.frames / settings.sample_rate)
    except sf.LibsndfileError as error:
        raise OSError(f"{path}: cannot be written: {error.error_string}") from error


if __name__ == "__main__":
    main(demo, __doc__)
