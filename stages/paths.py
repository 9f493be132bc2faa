"""Where the stages read and write, below the folder of the project."""

from pathlib import Path

PARAMS = Path("params.yaml")
DEMO = Path("data/demo")
CLEAN = Path("data/24k")
PITCH = Path("data/pitch")
SHARDS = Path("data/shards")
TRACKS = Path("data/tracks")
MODELS = Path("models")
SAMPLES = Path("samples")
SPECTROGRAMS = SAMPLES / "spectrograms.parquet"
METRICS = Path("metrics")
PLOTS = Path("plots")
REPORT = Path("report")
CHECKPOINTS = Path("checkpoints")
