"""Synthesise the built-in corpus, songs of one singing voice: data/demo/song-*.wav, and their phonemes, song-*.lab.

Writes demo.files songs as 16-bit mono WAV at demo.sample_rate, with HTK labels beside each. Together they last
demo.minutes and a little more, since each ends with a whole phrase. Equal settings give equal bytes.
"""

import time
from contextlib import closing

from melnet.data.atomic import atomic_folder
from stages.command import main
from stages.demo_voice.voice import SongTask, write_song
from stages.execution.parallel import parallel
from stages.parameters import Params
from stages.paths import DEMO


def demo(params: Params) -> None:
    """Write ``data/demo``, complete or not at all."""
    started = time.monotonic()
    settings = params.demo
    print(f"{settings.files} songs of one voice, {settings.minutes:g} minutes at {settings.sample_rate} Hz", flush=True)
    digits = max(2, len(str(settings.files)))
    length = settings.minutes * 60 / settings.files
    with atomic_folder(DEMO, needed=int(settings.minutes * 60 * settings.sample_rate * 2)) as folder:
        tasks = [
            SongTask(folder.absolute() / f"song-{n:0{digits}}.wav", settings.seed, n, length, settings.sample_rate)
            for n in range(1, settings.files + 1)
        ]
        written = parallel(
            write_song,
            tasks,
            total=settings.files,
            label="demo",
            unit="files",
            scheduler=params.execution.dask_scheduler,
            shared=[folder],
        )
        with closing(written):
            seconds = sum(written)
    print(f"{settings.files} songs, {seconds / 60:.2f} minutes, in {DEMO}; {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main(demo, __doc__)
