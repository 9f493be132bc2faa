"""What all tests share: a quiet TensorFlow, one seeded generator, and a finished run to report on."""

import json
import os
import shutil
from pathlib import Path

# Before anything imports TensorFlow.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Also where there are GPUs: what tests compare is a CPU's, and there are more processes than GPUs.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
# Most of the tests' time is XLA's: what it compiles runs for moments only, and is not worth optimising.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")

import numpy as np
import pytest
import soundfile
from hypothesis import settings

from tests.params_file import edit_params

# `make test` tries the same inputs every time, so that a failure belongs to the change at hand; `make test-faults`
# searches for new ones.
settings.register_profile("repeatable", derandomize=True)
settings.register_profile("searching", derandomize=False)
settings.load_profile("searching" if os.environ.get("HYPOTHESIS_SEARCH") else "repeatable")

ROOT = Path(__file__).parents[1]
MARKUP = "<img src=x onerror=alert(1)>"
SMALL = {
    "corpus": {"path": "corpus"},
    "slice": {"frames": 40, "block_seconds": 2.0, "test": 0.4},
    "vocoder": {"hidden": 8, "blocks": 1},
    "generate": {"count": 3, "frames": 80, "measured": 0, "griffin_lim_iterations": 2},
    "report": {"recordings": 2},
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest file first, for no worker to be left alone with it; last those that a Prefect server is started for.

    Its client leaves threads behind that draw from Python's generator, from which Keras seeds weights.
    """
    order = {"test_graph.py": 0, "pipeline": 2}
    items.sort(key=lambda item: order.get(item.path.relative_to(ROOT).parts[1], 1))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20190604)


def glide(seconds, sample_rate=24000):
    """A tone with harmonics that glides up and down."""
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    phase = 2 * np.pi * np.cumsum(300 + 100 * np.sin(2 * time)) / sample_rate
    return sum(0.2 / k * np.sin(k * phase) for k in (1, 2, 3, 5, 8))


@pytest.fixture(name="glide", scope="session")
def glide_fixture():
    return glide


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory):
    """A folder as the graph leaves it before `report`, of a corpus with markup in its names; not to be changed.

    The samples and metrics are made up, and the vocoder has its initial weights: nothing is trained.
    """
    from stages.downsample import downsample
    from stages.parameters import load_params
    from stages.slice import slice_recordings

    folder = tmp_path_factory.mktemp("finished")
    params = load_params(edit_params(folder, SMALL))
    (folder / "corpus").mkdir()
    for name, seconds in ((f"{MARKUP}.wav", 24), ("song.wav", 12)):
        soundfile.write(folder / "corpus" / name, glide(seconds), 24000)
    (folder / "corpus" / f"no audio {MARKUP}.mp3").write_text("words")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for stage in ("downsample", "slice"):  # starting processes takes longer than this little work
            patch.setattr(f"stages.{stage}.parallel", lambda function, items, **_: (function(item) for item in items))
        downsample(params)
        slice_recordings(params)
        make_model(params)
        make_samples(params)
        make_metrics()
    return folder


@pytest.fixture(scope="session")
def asked_run(finished_run, tmp_path_factory):
    """The same of a model that is told melody and phonemes, and was given a score; not to be changed.

    The first sample sings what the first passage does, the others what other passages do.
    """
    from stages.parameters import load_params

    folder = tmp_path_factory.mktemp("asked") / "run"
    shutil.copytree(finished_run, folder)
    changes = {"model": {"condition_on": ["melody", "phonemes"]}, "generate": {"score": "scores/ode & joy.mid"}}
    params = load_params(edit_params(folder, changes, folder / "params.yaml"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_tracks(params)
        make_asked(params)
    return folder


def make_tracks(params):
    """Tracks of the corpus: its gliding melody with a rest in each second, and three phonemes in turn."""
    from melnet.data.tracks import TrackSpec, Vocabulary, write_tracks
    from stages.corpus.manifest import read_manifest
    from stages.paths import CLEAN

    mel = params.mel_spec

    def tracks(row):
        seconds = np.arange(round(row["seconds_out"] / mel.seconds_per_frame) + 1) * mel.seconds_per_frame
        melody = np.stack([np.log(300 + 100 * np.sin(2 * seconds)), seconds % 1 < 0.8], axis=1).astype(np.float32)
        return row["path"], melody, (seconds // 0.2 % 4).astype(np.int32)

    vocabulary = Vocabulary("phonemes", ("a", "<br>", "unusually long"), seconds=(0.2, 0.2, 0.2))
    spec = TrackSpec(mel.sample_rate, mel.hop_length, ("melody", "phonemes"), vocabulary)
    write_tracks(Path("data/tracks"), spec, (tracks(row) for row in read_manifest(CLEAN) if row["status"] == "ok"))


def make_asked(params):
    """What `generate` adds for such a model."""
    from melnet.audio.files import write_wav
    from melnet.audio.griffin_lim import mel_to_audio
    from melnet.data.dataset import passages
    from melnet.data.samples import Samples
    from melnet.data.shards import Shards

    spec, test = params.mel_spec, Shards(Path("data/shards/test"))
    asked = np.stack([passage.log_mel for passage in passages(test, params.generate.count, params.generate.frames)])
    for name, mels in (("asked", asked), ("score", np.concatenate([asked[:2]] * 4, axis=1))):
        names = [f"{name}-{i:02d}" for i in range(len(mels))]
        for sample, signal in zip(names, mel_to_audio(mels, spec, iterations=2, seed=0), strict=True):
            write_wav(Path(f"samples/{name}/{sample}.wav"), signal, spec.sample_rate, normalise=True)
        Samples(names, [""] * len(names), mels, spec).write(Path(f"samples/{name}/spectrograms.parquet"))
    score = {
        "notes": [[0.5, 1.0, 69.0, "a"], [1.0, 2.5, 57.0, "<br>"]],
        "labels": [[0.5, 1.0, "a"], [1.0, 90.0, "<br>"]],
    }
    Path("samples/score/score.json").write_text(json.dumps(score))
    recorded = {"pitch_accuracy": 0.85, "voicing_agreement": 0.97, "contour_correlation": 0.98, "phoneme_accuracy": 0.7}
    sung = {"pitch_accuracy": 0.82, "voicing_agreement": 0.91, "contour_correlation": 0.95, "phoneme_accuracy": 0.48}
    edit_metrics("generate", {"asked": sung, "asked_recorded": recorded, "score": {"pitch_accuracy": 0.8}})
    edit_metrics("evaluate", {"nll_without": {"melody": -0.4, "phonemes": -0.35, "all": -0.25}})


def edit_metrics(name, changes):
    path = Path(f"metrics/{name}.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def make_model(params):
    """What the tiers of a model share, and a vocoder."""
    import keras

    from melnet.data.dataset import Normalisation
    from melnet.saved import ModelConfig, save_config
    from melnet.vocoder.config import VocoderConfig
    from melnet.vocoder.networks import EnvelopeNetwork, PitchNetwork, build
    from melnet.vocoder.saved import VOCODER, save_vocoder
    from melnet.vocoder.synthesis import Vocoder

    model, mel = params.model, params.mel_spec
    normalisation = Normalisation.read(Path("data/shards/normalisation.json"))
    save_config(
        Path("models"),
        ModelConfig(
            mel,
            params.slice.frames,
            model.cell,
            model.num_components,
            model.min_sigma,
            model.tier_names,
            singers=[],
            normalisation=normalisation,
        ),
    )
    keras.utils.set_random_seed(0)
    config = VocoderConfig(mel, normalisation, [], params.vocoder.hidden, params.vocoder.blocks)
    networks = (build(network(config), config) for network in (PitchNetwork, EnvelopeNetwork))
    save_vocoder(Path("models"), Vocoder(config, *networks), VOCODER)


def make_samples(params):
    """Samples as `generate` leaves them, made of recorded spectrograms; both inversions are Griffin-Lim's."""
    from melnet.audio.files import write_wav
    from melnet.audio.griffin_lim import mel_to_audio
    from melnet.data.dataset import draw
    from melnet.data.samples import Samples
    from melnet.data.shards import Shards

    spec = params.mel_spec
    mels = draw(Shards(Path("data/shards/train")), 2 * params.generate.count, seed=0)
    mels = mels.reshape(params.generate.count, params.generate.frames, spec.n_mels)
    names = [f"sample-{i:02d}" for i in range(len(mels))]
    for seed, folder in enumerate(("samples", "samples/griffin-lim")):
        for name, signal in zip(names, mel_to_audio(mels, spec, iterations=2, seed=seed), strict=True):
            write_wav(Path(folder) / f"{name}.wav", signal, spec.sample_rate, normalise=True)
    Samples(names, [""] * len(names), mels, spec).write(Path("samples/spectrograms.parquet"))


def make_metrics():
    copies = {
        "vocoder": {"voicing_accuracy": 0.97, "pitch_accuracy": 0.95, "octave_errors": 0.01},
        "griffin-lim": {"voicing_accuracy": 0.81, "pitch_accuracy": 0.62, "octave_errors": 0.02},
    }
    metrics = {
        "vocoder": {"valid": {"vocoder": {"voicing_accuracy": 0.96}}, "test": copies},
        "evaluate": {"nll": -0.5, "baseline_band_nll": 1.0, "baseline_linear_nll": 0.1, "floored": 0.25},
        "generate": {
            "told_apart": {"windows": {"mean": 0.83, "spread": 0.03}},
            "told_apart_noise": {"windows": {"mean": 0.97, "spread": 0.01}},
            "memorised": {"ratio": 0.9, "ratio_low": 0.4, "nearest": 0.3},
            "frechet": 20.0,
            "frechet_train": 6.0,
            "frechet_band_baseline": 80.0,
            "log_mel_error_copy": 0.125,
            "log_mel_error_generated": 0.375,
            "voice": {"voiced_share": 0.7, "pitch_median": 221.0, "jitter_cents": 6.25},
            "voice_recorded": {"voiced_share": 0.8, "pitch_median": 231.0, "jitter_cents": 4.5},
        },
        "train/tier-1": {"best_epoch": 2, "loss": -0.4, "val_loss": -0.3},
    }
    for folder in ("train", "history"):
        (Path("metrics") / folder).mkdir(parents=True)
    for name, values in metrics.items():
        Path(f"metrics/{name}.json").write_text(json.dumps(values))
    for name in ("tier-1", "vocoder-envelopes", "vocoder-pitch"):
        Path(f"metrics/history/{name}.csv").write_text(
            "epoch,loss,val_loss,learning_rate\n1,1.5,1.25,0.001\n2,-0.4,-0.3,0.001\n3,-0.45,0.125,0.0005\n"
        )
