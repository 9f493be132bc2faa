"""Stage `report`: what the page and the card say, that they say it safely, and always the same."""

import hashlib
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from PIL import Image
from ruamel.yaml import YAML

from stages.command import StageError
from stages.parameters import load_params
from stages.report import PAGE, report
from stages.report_page.versions import flat

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
def run(finished_run, tmp_path, monkeypatch):
    """A copy of a finished run, which is the current directory; its parameters."""
    shutil.copytree(finished_run, tmp_path / "run")
    monkeypatch.chdir(tmp_path / "run")
    # A repository above the temporary folder is none of this run's.
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    return load_params(Path("params.yaml"))


def written_page():
    return Page(Path("report/index.html").read_text(encoding="utf-8"))


def run_js():
    return json.loads(Path("report/run.js").read_text().removeprefix("window.melnetRun = ").rstrip(";\n"))


def digests():
    files = [path for path in Path("report").rglob("*") if path.is_file() and path.name != "run.js"]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in [*files, Path("models/README.md")]}


def test_every_piece_has_its_audio_and_its_picture(run):
    report(run)
    slugs = [f"sample-{i:02d}" for i in range(3)] + [
        f"{kind}-{i:02d}" for i in range(2) for kind in ("recording", "copy")
    ]
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
    assert f"sample-01, {MARKUP} sample" in page.text
    names = [audio["aria-label"] for audio in page.all("audio")]
    assert names[:4] == ["sample-00", f"sample-01, {MARKUP}", f"with its prime, sample-01, {MARKUP}", "sample-02"]
    assert soundfile.info("report/audio/sample-01-joined.wav").frames == (79 + 20) * 512
    shades = [np.asarray(Image.open(f"report/pictures/sample-01{kind}.png")) for kind in ("", "-joined")]
    assert shades[1].shape == (32, 20 + 80)
    assert (shades[1][:, 20:] == shades[0]).all()


def test_a_recording_is_the_one_that_its_spectrogram_is_of(run):
    report(run)
    titles = [re.fullmatch(r"(.+\.wav) at ([\d.]+) s", text) for text in written_page().texts]
    name, seconds = next(title for title in titles if title).groups()
    start = round(float(seconds) * 24000 / 512 / 40) * 40 * 512
    original, _ = soundfile.read(Path("corpus") / name, start=start, frames=79 * 512)
    played, _ = soundfile.read("report/audio/recording-00.wav")
    assert np.corrcoef(original, played)[0, 1] > 0.999


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
    shares = [float(share) for share in re.findall(r"([\d.]+) %", text)]
    assert sum(shares) == pytest.approx(100, abs=0.2)


def test_it_begins_with_the_figures_in_short(run):
    report(run)
    text = written_page().text
    assert "−0.5 nats per element on the test split; the baselines come to 0.1 and 1." in text
    assert "20.0 Fréchet distance of the samples; recordings come to 6.0, the baseline to 80.0." in text
    assert "nats is what Griffin-Lim alone costs on recordings; on the samples 0.38." in text


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
        "evaluate": {"nll": -0.5, "baseline_band_nll": 1.0, "baseline_previous_frame_nll": 0.1, "floored": 0.25}
    }
    row = next(attributes for attributes in written_page().all("tr") if attributes.get("data-name") == "nll")
    assert row["data-value"] == "-0.75"


def test_hashes_are_those_of_dvc(run):
    stages = {
        "downsample": {"outs": [{"path": "data/24k", "hash": "md5", "md5": "0123abcd.dir"}]},
        "report": {
            "outs": [{"path": name, "hash": "md5", "md5": "beefbeef"} for name in ("report", "models/README.md")]
        },
    }
    YAML().dump({"schema": "2.0", "stages": stages}, Path("dvc.lock"))
    report(run)
    report(run)  # when there is a card already
    # Of its own last outputs it knows nothing, or it would be another page each time.
    assert "beefbeef" not in written_page().text + Path("models/README.md").read_text()
    assert "0123abcd.dir" in written_page().text
    assert "- `data/24k`: MD5 `0123abcd.dir`" in Path("models/README.md").read_text()


def test_each_tier_has_its_curves(run):
    shutil.copy("metrics/history/tier-1.csv", "metrics/history/tier-2.csv")
    tiers = run.model.tiers | {"tier-2": run.model.tiers["tier-1"]}
    report(run.model_copy(update={"model": run.model.model_copy(update={"tiers": tiers})}))
    assert [box["data-curves"] for box in written_page().all("div") if "data-curves" in box] == ["tier-1", "tier-2"]


def test_the_card_carries_the_licence(run):
    report(run)
    assert "do not pass the model on" in Path("models/README.md").read_text()
    stated = run.report.model_copy(update={"licence": "CC0, sung by the authors"})
    report(run.model_copy(update={"report": stated}))
    card = Path("models/README.md").read_text()
    assert "CC0, sung by the authors" in card
    assert "do not pass the model on" not in card
    assert "| `nll` | -0.5 | model, test split, nats per element |" in card


def test_missing_samples_are_named(run):
    Path("samples/spectrograms.parquet").unlink()
    with pytest.raises(StageError, match=r"samples/spectrograms\.parquet"):
        report(run)
    assert not Path("report").exists()
