"""Synthesise the built-in corpus, songs of one singing voice: data/demo/song-*.wav, and their phonemes, song-*.lab.

Writes demo.files songs as 16-bit mono WAV at demo.sample_rate, with HTK labels beside each. Together they last
demo.minutes and a little more, since each ends with a whole phrase. Equal settings give equal bytes.
"""

import time

from melnet.data.atomic import atomic_folder
from stages.command import main
from stages.demo_voice.voice import write_songs
from stages.parameters import Params
from stages.paths import DEMO
from stages.progress import progress


def demo(params: Params) -> None:
    """Write ``data/demo``, complete or not at all."""
    started = time.monotonic()
    settings = params.demo
    print(f"{settings.files} songs of one voice, {settings.minutes:g} minutes at {settings.sample_rate} Hz", flush=True)
    with atomic_folder(DEMO, needed=int(settings.minutes * 60 * settings.sample_rate * 2)) as folder:
        songs = write_songs(folder, settings.seed, settings.minutes, settings.files, settings.sample_rate)
        seconds = sum(progress(songs, total=settings.files, label="demo", unit="files"))
    print(f"{settings.files} songs, {seconds / 60:.2f} minutes, in {DEMO}; {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main(demo, __doc__)
