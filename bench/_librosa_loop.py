"""The usual way to prepare recordings: one process reads one whole file after the other; prints its seconds.

``python -m bench._librosa_loop FOLDER`` is the reference of bench/prepare.py. It keeps only the last
spectrogram; the time of its imports does not count.
"""

import sys
import time
from pathlib import Path

import librosa

from stages.parameters import load_params

if __name__ == "__main__":
    mel = load_params(Path("params.yaml")).mel
    started = time.perf_counter()
    for path in sorted(Path(sys.argv[1]).iterdir()):
        samples, rate = librosa.load(path, sr=24000)
        librosa.feature.melspectrogram(
            y=samples,
            sr=rate,
            n_fft=mel.n_fft,
            hop_length=mel.hop_length,
            n_mels=mel.n_mels,
            fmin=mel.fmin,
            fmax=mel.fmax,
        )
    print(time.perf_counter() - started)
