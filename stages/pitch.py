"""Track the pitch of the recordings: data/24k -> data/pitch/pitch.parquet.

The file has a row per recording: its name and its pitch in Hz every 16 ms, 0 where it is not voiced. The vocoder learns
from it, and the metrics of samples compare with it.
"""

import time
from contextlib import closing

from melnet.audio.integrity import UnusableAudio
from melnet.data.atomic import atomic_folder
from melnet.data.pitch_tracks import PitchTask, track_file, write_pitch_tracks
from stages.command import StageError, main
from stages.corpus.manifest import read_manifest
from stages.execution.parallel import parallel
from stages.parameters import Params
from stages.paths import CLEAN, PITCH


def pitch(params: Params) -> None:
    """Write ``data/pitch``; raise :class:`StageError` if there is no manifest, or a recording cannot be read."""
    started = time.monotonic()
    rate = params.downsample.sample_rate
    rows = [row for row in read_manifest(CLEAN) if row["status"] == "ok"]
    tasks = [PitchTask(CLEAN.absolute() / row["output"], round(row["seconds_out"] * rate), rate) for row in rows]
    tracks = parallel(
        track_file,
        tasks,
        total=len(tasks),
        label="pitch",
        unit="recordings",
        scheduler=params.execution.dask_scheduler,
        shared=[CLEAN],
    )
    try:
        with atomic_folder(PITCH) as folder, closing(tracks):
            named = zip((row["path"] for row in rows), tracks, strict=True)
            voiced = write_pitch_tracks(folder, named)
    except UnusableAudio as error:
        raise StageError(f"{error}; run the stage downsample again") from error
    print(f"{len(tasks)} recordings, voiced {voiced:.0%} of the time, in {PITCH}; {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main(pitch, __doc__)
