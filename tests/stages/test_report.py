"""Stage `report`: what the page and the card say, that they say it safely, and always the same."""

import dataclasses
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import nullcontext
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from PIL import Image
from ruamel.yaml import YAML

from melnet.data.dataset import passages
from melnet.data.samples import Samples
from melnet.data.shards import Shards
from melnet.errors import MelnetError
from melnet.saved import load_config, save_config
from melnet.vocoder.saved import load_vocoder
from stages.corpus.manifest import read_manifest, write_manifest
from stages.parameters import load_params
from stages.paths import CLEAN
from stages.report import PAGE, report
from stages.report_page.player_assets import label_spans, phoneme_runs
from stages.report_page.versions import flat
from tests.params_file import edit_params

ROOT = Path(__file__).parents[2]
MARKUP = "<img src=x onerror=alert(1)>"
SHIPPED = flat(YAML(typ="safe").load(PAGE / "defaults.yaml"))
GIT = ("git", "-c", "user.name=test", "-c", "user.email=test")


class Page(HTMLParser):
    """Tags with their attributes, and the text of a page."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(source)
        self.text = " ".join(" ".join(text.split()) for text in self.texts if text.strip())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """Copies a finished run to what then is the current directory; gives its parameters."""

    def copied(folder):
        shutil.copytree(folder, tmp_path / "run")
        monkeypatch.chdir(tmp_path / "run")
        # A repository above the temporary folder is none of this run's.
        monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
        return load_params(Path("params.yaml"))

    return copied


@pytest.fixture
def run(finished_run, copy):
    return copy(finished_run)


@pytest.fixture
def asked(asked_run, copy):
    """A run of a model that is told melody and phonemes."""
    return copy(asked_run)


def written_page():
    return Page(Path("report/index.html").read_text(encoding="utf-8"))


def run_js():
    return json.loads(Path("report/run.js").read_text().removeprefix("window.melnetRun = ").rstrip(";\n"))


def digests():
    files = [path for path in Path("report").rglob("*") if path.is_file() and path.name != "run.js"]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in [*files, Path("models/README.md")]}


def test_every_piece_has_its_audio_and_its_picture(run):
    report(run)
    slugs = [f"sample-{i:02d}-{version}" for i in range(3) for version in ("vocoder", "griffin-lim")]
    for i in range(2):
        slugs += [f"recording-{i:02d}", f"copy-{i:02d}-vocoder", f"copy-{i:02d}-griffin-lim"]
    page = written_page()
    assert [audio["src"] for audio in page.all("audio")] == [f"audio/{slug}.wav" for slug in slugs]
    assert [image["src"] for image in page.all("img")] == [f"pictures/{slug}.png" for slug in slugs]
    assert all(audio["preload"] == "none" for audio in page.all("audio"))
    assert all(image["loading"] == "lazy" for image in page.all("img"))
    for slug in slugs:
        assert soundfile.info(f"report/audio/{slug}.wav").frames == 79 * 512
        image = Image.open(f"report/pictures/{slug}.png")
        assert image.size == (80, 32)
        assert np.asarray(image.convert("L")).std() > 10


def played(name):
    return soundfile.read(f"report/audio/{name}.wav")[0]


def test_every_sample_and_every_copy_is_heard_by_the_vocoder_and_by_griffin_lim(run):
    report(run)
    page = written_page()
    names = [audio["aria-label"] for audio in page.all("audio")]
    assert names[:3] == ["sample-00, vocoder", "sample-00, Griffin-Lim", "sample-01, vocoder"]
    versions = [name.split(" s, ")[1] for name in names if ".wav at" in name]
    assert versions == 2 * ["recording", "copy synthesis, vocoder", "copy synthesis, Griffin-Lim"]
    assert "Griffin-Lim did so too, for comparison" in page.text
    for name in ("", "griffin-lim/"):
        made, _ = soundfile.read(f"samples/{name}sample-01.wav")
        shown = played(f"sample-01-{name.strip('/') or 'vocoder'}")
        assert np.corrcoef(made, shown)[0, 1] > 0.999
    assert np.corrcoef(played("sample-01-vocoder"), played("sample-01-griffin-lim"))[0, 1] < 0.99


def test_the_copies_by_the_vocoder_are_its_own(run):
    report(run)
    config = load_config(Path("models"))
    vocoder, _ = load_vocoder(Path("models"), config.mel, [])
    found = passages(Shards(Path("data/shards/test")), 2, 80)
    for i, audio in enumerate(vocoder(np.stack([p.log_mel for p in found]), seed=run.generate.seed)):
        assert np.corrcoef(audio, played(f"copy-{i:02d}-vocoder"))[0, 1] > 0.999


def test_each_passage_is_copied_with_its_own_singer(run, monkeypatch):
    """A vocoder of two singers is told who sings a passage."""
    config = dataclasses.replace(load_config(Path("models")), singers=["anna", "bo"])
    save_config(Path("models"), config)
    asked = []

    def vocoder(log_mels, singers, seed):
        asked.append((singers, seed))
        return np.ones((len(log_mels), (log_mels.shape[1] - 1) * 512), np.float32)

    monkeypatch.setattr("melnet.vocoder.saved.load_vocoder", lambda *_: (vocoder, "vocoder"))
    found = passages(Shards(Path("data/shards/test")), 2, 80)
    sung = [passage._replace(singer=singer) for passage, singer in zip(found, ("bo", "anna"), strict=True)]
    monkeypatch.setattr("stages.report_page.gallery.passages", lambda *_: sung)
    report(run)
    assert asked == [([1, 0], run.generate.seed)]


def griffin_lim(run):
    """Parameters with which the vocoder is not asked."""
    return run.model_copy(update={"generate": run.generate.model_copy(update={"inversion": "griffin-lim"})})


def test_the_nearest_passages_are_played_beside_each_other_with_a_warning(run):
    """One is a part of a sample, the other of a recording; the metrics say that they are suspiciously near."""
    report(run)
    assert "Nearest to the training data" not in written_page().text
    pair = {"sample": "sample-01", "sample_frame": 12, "recording": "song.wav", "recording_frame": 30, "frames": 47}
    Path("samples/nearest.json").write_text(json.dumps(pair))
    report(run)
    text = written_page().text
    assert "sample-01 at 0.3 s" in text and "song.wav at 0.6 s" in text
    assert "Parts of the samples are probably learnt by heart: the nearest of them lie 0.4 times as far" in text
    played = {path.stem: soundfile.read(path)[0] for path in Path("report/audio").glob("nearest-*.wav")}
    sources = {"nearest-sample": (Path("samples/sample-01.wav"), 12), "nearest-recording": (CLEAN / "song.flac", 30)}
    for name, (source, frame) in sources.items():
        part = soundfile.read(source)[0][frame * 512 : (frame + 46) * 512]
        assert np.corrcoef(played[name], part)[0, 1] > 0.999
    metrics = json.loads(Path("metrics/generate.json").read_text())
    metrics["memorised"]["ratio_low"] = 0.8
    Path("metrics/generate.json").write_text(json.dumps(metrics))
    report(run)
    assert "learnt by heart" not in written_page().text.partition("Metrics")[0]


def test_samples_by_griffin_lim_stand_alone(run):
    shutil.rmtree("samples/griffin-lim")
    report(griffin_lim(run))
    page = written_page()
    names = [audio["aria-label"] for audio in page.all("audio")]
    assert names[:3] == [f"sample-{i:02d}, Griffin-Lim" for i in range(3)]
    assert "copy synthesis, vocoder" in page.text  # there is one, if not for the samples
    assert "Griffin-Lim did so too" not in page.text


def test_without_a_vocoder_it_needs_no_tensorflow(run):
    shutil.rmtree("samples/griffin-lim")
    Path("models/vocoder.json").unlink()
    edit_params(Path.cwd(), {"generate": {"inversion": "griffin-lim"}}, Path("params.yaml"))
    code = (
        "import sys; from pathlib import Path; from stages.parameters import load_params; from stages.report import *;"
        "report(load_params(Path('params.yaml'))); print('keras' in sys.modules or 'tensorflow' in sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "False"
    assert "copy synthesis, vocoder" not in written_page().text
    assert "copy synthesis, Griffin-Lim" in written_page().text


@pytest.mark.parametrize("inversion", ["auto", "vocoder", "griffin-lim"])
@pytest.mark.parametrize("fault", ["missing", "damaged", "foreign"])
def test_a_vocoder_that_cannot_be_used_is_named(run, fault, inversion):
    path = Path("models/vocoder.json")
    if fault == "missing":
        path.unlink()
    elif fault == "damaged":
        Path("models/vocoder.weights.h5").write_bytes(b"")
    else:
        path.write_text(path.read_text().replace('"singers": []', '"singers": ["anna"]'))
    run = run.model_copy(update={"generate": run.generate.model_copy(update={"inversion": inversion})})
    # Griffin-Lim needs none, but one that is there has to be whole.
    wanted = (fault, inversion) != ("missing", "griffin-lim")
    with pytest.raises(MelnetError, match=r"^models/vocoder\.") if wanted else nullcontext():
        report(run)
    assert Path("report").exists() != wanted


def test_the_pitch_of_each_track_is_drawn_over_its_spectrogram(run):
    """The recordings are a tone that glides from 200 to 400 Hz and back."""
    report(run)
    page = written_page()
    pictures = [svg for svg in page.all("svg") if svg.get("class") == "pitch"]
    assert len(pictures) == len(page.all("audio"))
    assert {(svg["aria-hidden"], svg["preserveaspectratio"]) for svg in pictures} == {("true", "none")}
    width = 79 * 512 / 24000 / 0.016
    assert {svg["viewbox"] for svg in pictures} == {f"0 0 {width:.4f} 1000"}
    edges = [path["d"] for path in page.all("path") if path.get("class") == "edge"]
    recording = [audio["src"] for audio in page.all("audio")].index("audio/recording-00.wav")
    frames, heights = np.array(re.findall(r"(\d+),(\d+)", edges[recording]), int).T
    assert len(np.unique(frames)) > 0.9 * width
    assert frames.max() <= width
    seconds = next(filter(None, (re.fullmatch(r".+\.wav at ([\d.]+) s", text) for text in page.texts)))[1]
    pitch = 65 * (1100 / 65) ** (1 - heights / 1000)
    expected = 300 + 100 * np.sin(2 * (float(seconds) + 0.016 * frames))
    assert np.median(np.abs(1200 * np.log2(pitch / expected))) < 40
    assert "from 65 Hz at the bottom of the picture to 1100 Hz at its top" in page.text


def test_a_primed_sample_has_its_prime_before_it_and_its_singer_in_the_title(run):
    sample, rate = soundfile.read("samples/sample-01.wav")
    prime = np.sin(0.1 * np.arange(20 * 512))
    soundfile.write("samples/sample-01-joined.wav", 0.5 * np.concatenate([prime, sample]), rate)
    path = "samples/spectrograms.parquet"
    table = pq.read_table(path)
    pq.write_table(
        table.set_column(1, "singer", [["", MARKUP, ""]]).replace_schema_metadata(table.schema.metadata), path
    )
    report(run.model_copy(update={"generate": run.generate.model_copy(update={"prime": "a song.wav"})}))
    page = written_page()
    assert "continues the end of a song.wav" in page.text
    names = [audio["aria-label"] for audio in page.all("audio")]
    assert names[2:5] == [f"sample-01, {MARKUP}, {version}" for version in ("vocoder", "Griffin-Lim", "with its prime")]
    assert soundfile.info("report/audio/sample-01-joined.wav").frames == (79 + 20) * 512
    shades = [np.asarray(Image.open(f"report/pictures/sample-01-{kind}.png")) for kind in ("vocoder", "joined")]
    assert shades[1].shape == (32, 20 + 80)
    assert (shades[1][:, 20:] == shades[0]).all()


def test_a_recording_is_the_one_that_its_spectrogram_is_of(run):
    report(run)
    titles = [re.fullmatch(r"(.+\.wav) at ([\d.]+) s", text) for text in written_page().texts]
    name, seconds = next(title for title in titles if title).groups()
    start = round(float(seconds) * 24000 / 512 / 40) * 40 * 512
    original, _ = soundfile.read(Path("corpus") / name, start=start, frames=79 * 512)
    assert np.corrcoef(original, played("recording-00"))[0, 1] > 0.999


def test_names_are_text_and_no_markup(run):
    report(run)
    page = written_page()
    assert f"{MARKUP}.wav at" in page.text
    assert f"no audio {MARKUP}.mp3" in page.text
    assert not [image for image in page.all("img") if "onerror" in image]
    assert "<img src=x" not in Path("report/index.html").read_text(encoding="utf-8")


def test_the_page_loads_nothing_from_elsewhere(run):
    report(run)
    page = written_page()
    for tag, attributes in page.tags:
        address = attributes.get("src", attributes.get("href", ""))
        if tag in {"script", "link", "img", "audio"} and address and address not in {"data:,", "run.js"}:
            assert (Path("report") / address).is_file()


def test_it_says_what_became_of_the_corpus(run):
    report(run)
    text = written_page().text
    assert "2 recordings from corpus , 0.01 hours, recorded at 24000 Hz" in text
    assert "1 file rejected" in text
    assert "not audio" in text
    shares = [float(share) for share in re.findall(r"([\d.]+) %", text[text.index("recorded at") :])]
    assert sum(shares) == pytest.approx(100, abs=0.2)


def test_duplicates_and_pauses_are_told_from_rejected_files(run):
    first, *others = read_manifest(CLEAN)
    double = {"path": "again.wav", "status": "duplicate", "reason": "same recording as song.wav"}
    write_manifest(CLEAN, [double, first | {"seconds_removed": 90.0}, *others])
    report(run)
    text = written_page().text
    assert "1 file rejected, 1 duplicate left out; 1.5 min of pauses removed." in text
    assert "again.wav same recording as song.wav" in text


def test_label_files_are_no_rejected_recordings(run):
    label = {"path": "song.lab", "status": "rejected", "reason": "not audio in any format that can be read"}
    write_manifest(CLEAN, [label, *(row for row in read_manifest(CLEAN) if row["status"] == "ok")])
    report(run)
    text = written_page().text
    assert "2 recordings; 0 files rejected." in text
    assert "Files not used as audio file reason song.lab not audio" in text


def test_it_begins_with_the_figures_in_short(run):
    report(run)
    text = written_page().text
    said = [
        "83 % of windows of one second are told rightly by a simple classifier to be generated or recorded; "
        "50 % would be guessing. For noise without structure it is 97 %.",
        "70 % of the generated frames are voiced, against 80 % in recordings of the test split.",
        "6.2 cents is how much the generated pitch jitters from frame to frame; in recordings it is 4.5.",
        "97 % of the frames of recordings stay voiced or unvoiced when the vocoder turns their spectrograms back into "
        "audio; with Griffin-Lim it is 81 %.",
        "95 % of their voiced frames keep their pitch within 50 cents; with Griffin-Lim it is 62 %.",
        "−0.5 nats per element on the test split; linear regression on three frames and the lower bands comes to 0.1.",
    ]
    places = [text.index(sentence) for sentence in said]
    assert places == sorted(places)  # the headline, and then what can be heard


def test_it_says_nothing_of_a_voice_that_was_not_found(run):
    for name in ("generate", "vocoder"):
        path = Path(f"metrics/{name}.json")
        content = json.loads(path.read_text())
        for voice in ("voice", "voice_recorded") if name == "generate" else ():
            content[voice] = {"voiced_share": 0.0}
        for copies in content["test"].values() if name == "vocoder" else ():
            del copies["pitch_accuracy"], copies["octave_errors"]
        path.write_text(json.dumps(content))
    report(run)
    text = written_page().text
    assert "0 % of the generated frames are voiced" in text
    assert "stay voiced or unvoiced" in text
    assert "jitters" not in text
    assert "keep their pitch" not in text


def test_nested_metrics_have_meanings_and_a_better_way(run):
    path = Path("metrics/generate.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"frechet_by_singer": {f"a_b.{MARKUP}": {"bo": 2.0}}}))
    report(run)
    page = written_page()
    rows = {row["data-name"]: row for row in page.all("tr") if "data-name" in row}
    assert rows["test.vocoder.voicing_accuracy"]["data-better"] == "higher"
    assert rows["test.griffin-lim.octave_errors"]["data-better"] == "lower"
    assert rows["nll"]["data-better"] == "lower"
    assert "data-better" not in rows["voice.jitter_cents"]
    for meaning in (
        "copy by the vocoder, test split: share of frames that are rightly voiced or unvoiced",
        "copy by Griffin-Lim, test split: share of the recordings' voiced frames whose pitch is right",
        "test split: median of the pitch, Hz",
        "samples of the first singer from test recordings of the second",
    ):
        assert meaning in page.text
    name = next(name for name in rows if name.startswith("frechet_by_singer"))
    assert name == f"frechet_by_singer.a_b.{MARKUP}.bo"
    assert not [image for image in page.all("img") if "onerror" in image]


def test_changed_settings_stand_beside_their_defaults(run):
    report(run)
    text = written_page().text
    changed = text[text.index("Changed settings") : text.index("All settings")]
    assert "slice.frames 40 50" in changed
    assert "train.epochs" not in changed


def own_settings():
    return flat(load_params(ROOT / "params.yaml").model_dump(exclude={"execution"}, exclude_unset=True))


def test_the_defaults_know_every_setting():
    assert set(SHIPPED) == set(
        flat(load_params(ROOT / "params.yaml").model_dump(exclude={"execution"}, exclude_unset=True))
    )


def test_the_defaults_are_those_of_params_yaml():
    settings = own_settings()
    if settings["corpus.path"] != SHIPPED["corpus.path"]:
        pytest.skip("params.yaml is for a corpus of its user's own, with settings to suit")
    assert settings == SHIPPED, "a new default belongs into stages/report_page/templates/defaults.yaml too"


def test_equal_runs_give_equal_bytes_whatever_git_says(run):
    report(run)
    first, without_git = digests(), run_js()
    subprocess.run(["git", "init", "--quiet"], check=True)
    subprocess.run([*GIT, "commit", "--quiet", "--allow-empty", "--message", "one"], check=True)
    report(run)
    assert digests() == first
    assert without_git["commit"] is None
    assert run_js()["commit"] is not None


def test_metrics_of_the_last_commit_are_given_to_the_page(run):
    subprocess.run(["git", "init", "--quiet"], check=True)
    subprocess.run(["git", "add", "metrics/evaluate.json"], check=True)
    subprocess.run([*GIT, "commit", "--quiet", "--message", "one"], check=True)
    Path("metrics/evaluate.json").write_text('{"nll": -0.75}')
    report(run)
    assert run_js()["metrics"] == {
        "evaluate": {"nll": -0.5, "baseline_band_nll": 1.0, "baseline_linear_nll": 0.1, "floored": 0.25}
    }
    row = next(attributes for attributes in written_page().all("tr") if attributes.get("data-name") == "nll")
    assert row["data-value"] == "-0.75"


def test_hashes_are_those_of_dvc(run):
    stages = {
        "downsample": {"outs": [{"path": "data/24k", "hash": "md5", "md5": "0123abcd.dir"}]},
        "report": {
            "outs": [{"path": name, "hash": "md5", "md5": "beefbeef"} for name in ("report", "models/README.md")]
        },
        "vocoder": {
            "outs": [{"path": f"models/vocoder.{end}", "hash": "md5", "md5": end} for end in ("json", "weights.h5")]
        },
    }
    YAML().dump({"schema": "2.0", "stages": stages}, Path("dvc.lock"))
    report(run)
    report(run)  # when there is a card already
    # Of its own last outputs it knows nothing, or it would be another page each time.
    assert "beefbeef" not in written_page().text + Path("models/README.md").read_text()
    assert "0123abcd.dir" in written_page().text
    card = Path("models/README.md").read_text()
    assert "- `data/24k`: MD5 `0123abcd.dir`" in card
    assert "- `models/vocoder.json`: MD5 `json`\n- `models/vocoder.weights.h5`: MD5 `weights.h5`\n" in card


def test_each_tier_and_each_network_of_the_vocoder_has_its_curves(run):
    shutil.copy("metrics/history/tier-1.csv", "metrics/history/tier-2.csv")
    tiers = run.model.tiers | {"tier-2": run.model.tiers["tier-1"]}
    report(run.model_copy(update={"model": run.model.model_copy(update={"tiers": tiers})}))
    boxes = [box for box in written_page().all("div") if "data-curves" in box]
    assert {box["data-curves"]: box["data-unit"] for box in boxes} == {
        "tier-1": "nats per element",
        "tier-2": "nats per element",
        "vocoder-pitch": "nats per frame",
        "vocoder-envelopes": "nats",
    }


def test_the_card_carries_the_licence(run):
    report(run)
    assert "do not pass the model on" in Path("models/README.md").read_text()
    stated = run.report.model_copy(update={"licence": "CC0, sung by the authors"})
    report(run.model_copy(update={"report": stated}))
    card = Path("models/README.md").read_text()
    assert "CC0, sung by the authors" in card
    assert "do not pass the model on" not in card
    assert "| `nll` | -0.5 | model, test split, nats per element |" in card


def test_the_limits_are_those_of_the_inversion(run):
    report(run)
    by_vocoder = Path("models/README.md").read_text()
    assert "there the vocoder adds what it learned from the recordings" in by_vocoder
    assert "Griffin-Lim (`log_mel_error_copy`" not in by_vocoder
    shutil.rmtree("samples/griffin-lim")
    report(run)
    by_griffin_lim = Path("models/README.md").read_text()
    assert "its audio is silent; phases are guessed by Griffin-Lim (`log_mel_error_copy`" in by_griffin_lim
    assert "the vocoder adds" not in by_griffin_lim


def attributes(page, tag, name):
    return [found for found in page.all(tag) if found.get("class") == name]


def test_each_recording_is_followed_by_the_sample_that_was_asked_to_sing_it(asked):
    report(asked)
    page = written_page()
    slugs = ["recording-00", "asked-00", "recording-01", "asked-01", "score-00", "score-01"]
    assert [audio["src"] for audio in page.all("audio")][:7] == [
        f"audio/{slug}.wav" for slug in [*slugs, "sample-00-vocoder"]
    ]
    title = next(text for text in page.texts if re.fullmatch(r".+\.wav at [\d.]+ s", text))
    names = [audio["aria-label"] for audio in page.all("audio")]
    assert names[:2] == [f"{title}, recording", f"{title}, sung as asked"]
    assert names[4] == "ode & joy.mid, score-00"
    assert np.corrcoef(played("asked-01"), soundfile.read("samples/asked/asked-01.wav")[0])[0, 1] > 0.999
    assert soundfile.info("report/audio/score-00.wav").frames == (4 * 80 - 1) * 512
    assert len(attributes(page, "li", "card score")) == 1
    assert "Generated freely" in page.text


def test_the_melody_asked_for_lies_under_the_pitch(asked):
    report(asked)
    page = written_page()
    paths = [path["d"] for path in attributes(page, "path", "asked")]
    assert paths == [path["d"] for path in attributes(page, "path", "asked edge")]
    assert paths[0] == paths[1] != paths[2] == paths[3]  # of a passage, and its sample
    frames, heights = np.array(re.findall(r"([\d.]+),(\d+)", paths[0]), float).T
    passage = passages(Shards(Path("data/shards/test")), 1, 80)[0]
    seconds = (passage.start_frame + np.arange(80)) * 512 / 24000
    voiced = seconds % 1 < 0.8
    assert frames == pytest.approx(np.arange(80)[voiced] * 512 / 24000 / 0.016, abs=0.06)
    cents = 1200 * np.log2(65 * (1100 / 65) ** (1 - heights / 1000) / (300 + 100 * np.sin(2 * seconds[voiced])))
    assert np.abs(cents).max() < 3
    # A4 and A3, from 0.5 and 1 s, each shortened by 0.03 s.
    a4, a3 = (round(1000 * (1 - np.log(hz / 65) / np.log(1100 / 65))) for hz in (440, 220))
    assert paths[4:] == 2 * [f"M31.2,{a4}H60.6M62.5,{a3}H154.4"]
    labels = [svg.get("aria-label", "") for svg in attributes(page, "svg", "pitch")]
    assert labels[5:7] == ["Pitch of ode & joy.mid, score-01, over the melody asked for", ""]


def test_the_phonemes_asked_for_stand_where_they_are_sung(asked):
    report(asked)
    page = written_page()
    strips = [strip["aria-label"] for strip in attributes(page, "div", "phonemes")]
    assert len(strips) == 6
    assert strips[5] == "Asked for in ode & joy.mid, score-01: a <br>"
    assert [style for style in (span.get("style", "") for span in page.all("span")) if "--left" in style][-2:] == [
        f"--left: {left / seconds:.4f}; --width: {width / seconds:.4f}"
        for seconds in [(4 * 80 - 1) * 512 / 24000]
        for left, width in ((0.5, 0.5), (1.0, seconds - 1.0))
    ]
    assert not page.all("br")


def test_runs_of_phonemes_reach_half_a_frame_beyond_their_centres():
    runs = phoneme_runs(np.array([2, 2, 0, 1, 1, 2]), ("a", "t"), seconds_per_frame=0.5)
    assert runs == [(0, 0.75, "t"), (1.25, 2.25, "a"), (2.25, 2.75, "t")]
    assert label_spans(runs, 2.5) == [(0, 0.3, "t"), (0.5, pytest.approx(0.4), "a"), (0.9, pytest.approx(0.1), "t")]
    assert label_spans([(3.0, 4.0, "a")], 2.5) == []


def test_it_says_how_well_it_sings_what_it_is_asked_for(asked):
    report(asked)
    page = written_page()
    for sentence in (
        "82 % of what it sings when it is asked for a melody lies within 50 cents of it; recordings, by copy "
        "synthesis, reach 85 %. It is voiced or unvoiced as asked in 91 % of the frames; recordings are in 97 %.",
        "48 % of its frames are heard by a simple classifier as the phoneme that was asked for; of the frames of "
        "recordings it is 70 %.",
        "80 % of what it sings of the score scores/ode & joy.mid lies within 50 cents of it.",
        "0.25 nats per element is what being told melody and phonemes is worth on the test split. Left out alone, "
        "melody costs 0.1 and phonemes cost 0.15.",
    ):
        assert sentence in page.text
    rows = {row["data-name"]: row for row in page.all("tr") if "data-name" in row}
    assert rows["asked.phoneme_accuracy"]["data-better"] == "higher"
    assert "data-better" not in rows["asked_recorded.phoneme_accuracy"]
    assert "model that is not told this; above nll by what it is worth" in page.text


def test_the_card_says_what_the_model_is_told(run):
    report(run)
    assert "nothing steers what it sings" in Path("models/README.md").read_text()


def test_the_card_of_a_model_that_is_told_says_how_to_use_it(asked):
    report(asked)
    card = Path("models/README.md").read_text()
    assert "It is told melody and phonemes of each frame and of 4 frames ahead; it also sings freely." in card
    low, high = re.search(r"sung between (\d+) and (\d+) Hz", card).groups()
    assert (float(low), float(high)) == (pytest.approx(200, abs=3), pytest.approx(400, abs=3))
    assert "Its phonemes: `a`, `<br>`, `unusually long`." in card
    assert "python -m melnet sing --score tune.mid" in card
    assert "not words" not in card


def test_a_model_that_is_told_the_melody_alone(asked):
    """No score is given, and there are no phonemes."""
    model = asked.model.model_copy(update={"condition_on": ["melody"]})
    generate = asked.generate.model_copy(update={"score": None})
    report(asked.model_copy(update={"model": model, "generate": generate}))
    page = written_page()
    assert len(attributes(page, "path", "asked")) == 4
    assert not attributes(page, "div", "phonemes")
    assert "It sings sounds, not words.\n" in Path("models/README.md").read_text()


@pytest.mark.parametrize("path", ["samples/asked/spectrograms.parquet", "data/tracks/tracks.parquet"])
def test_what_was_asked_is_named_if_it_is_missing(asked, path):
    Path(path).unlink()
    with pytest.raises(MelnetError, match=f"^{path}: no such file"):
        report(asked)


def test_texts_stand_where_they_are_read_above_a_picture_of_it(run):
    free, folder = Samples.read(Path("samples/spectrograms.parquet")), Path("samples/text")
    frames = free.log_mels.shape[1]
    folder.mkdir()
    Samples(["text-00"], [""], free.log_mels[:1], free.mel).write(folder / "spectrograms.parquet")
    shutil.copy("samples/sample-00.wav", folder / "text-00.wav")
    read = [[1, 0, 0]] * 5 + [[0.4, 0.6, 0]] * (frames - 5)
    known = {"symbols": ["pau", "a & <b>", "t"], "seconds_per_frame": 512 / 24000}
    found = [{"name": "text-00", "weights": read, **known}, {"name": "song.wav at 1.0 s", "weights": read, **known}]
    (folder / "alignments.json").write_text(json.dumps({"alignments": found}))
    report(run)
    page = written_page()
    assert page.all("audio")[0]["src"] == "audio/text-00.wav"
    assert page.all("audio")[0]["aria-label"] == "pau a & <b> t, text-00"
    [strip] = attributes(page, "div", "phonemes")
    assert strip["aria-label"] == "Asked for in pau a & <b> t, text-00: pau a & <b>"
    assert page.all("img")[0]["src"] == "pictures/alignments.png" and not page.all("b")
    assert Image.open("report/pictures/alignments.png").width == 12 * 130


def test_missing_samples_are_named(run):
    Path("samples/spectrograms.parquet").unlink()
    with pytest.raises(MelnetError, match=r"samples/spectrograms\.parquet"):
        report(run)
    assert not Path("report").exists()
