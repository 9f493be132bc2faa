"""The command `melnet`: files, pipes, and errors of one line."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import melnet
from melnet.command_line import _parser, main
from melnet.data.texts import Alphabet
from melnet.prime import read_recording
from melnet.sampling import DEFAULT_TEMPERATURE
from tests.small_model import SINGERS, TOLD, write_model

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "models", singers=SINGERS)


@pytest.fixture(autouse=True)
def _current_folder(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("models").symlink_to(folder)


def failure(*arguments):
    """The one line with which the command fails."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    message = str(caught.value)
    assert message.startswith("melnet") and len(message.splitlines()) == 1  # status 1
    return message


def test_sing_writes_what_the_interface_sings(folder, capsys):
    main(["sing", "--seconds", "1.5", "--seed", "3", "--singer", "bo", "--out", "new/song.wav"])
    audio, rate = soundfile.read("new/song.wav")
    sung = melnet.load(folder, warm_up=False).sing(1.5, seed=3, singer="bo")[0]
    assert rate == 24000
    np.testing.assert_allclose(audio, 0.95 * sung / np.abs(sung).max(), atol=1e-4)
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("new/song.wav: 1.5 s by vocoder in ") and len(output.err.splitlines()) == 1


def test_sing_follows_a_score(tmp_path, capsys):
    write_model(tmp_path / "told", told=TOLD)
    Path("melody.txt").write_text("tempo 120\nrest 1\nA3 1 t a")
    main(["sing", "--model", "told", "--score", "melody.txt", "--transpose", "-5", "--tempo", "2", "--out", "song.wav"])
    model = melnet.load("told", warm_up=False)
    with pytest.warns(UserWarning, match="beyond the range"):
        score = model.read_score("melody.txt", transpose=-5, tempo=2)
    sung = model.sing(score=score)[0]
    np.testing.assert_allclose(soundfile.read("song.wav")[0], 0.95 * sung / np.abs(sung).max(), atol=1e-4)
    warning, line = capsys.readouterr().err.splitlines()
    assert warning.startswith("melnet: melody.txt: the score goes from") and line.startswith("song.wav: 0.8 s by ")
    assert "takes no score" in failure("sing", "--score", "melody.txt", "--out", "song.wav")


def test_sing_reads_a_text(tmp_path):
    write_model(tmp_path / "reads", alphabet=Alphabet("phonemes", ("a", "t"), symbols_per_second=20.0))
    main(["sing", "--model", "reads", "--text", "t a t", "--seed", "2", "--out", "song.wav"])
    sung = melnet.load("reads", warm_up=False).sing(text="t a t", seed=2)[0]
    np.testing.assert_allclose(soundfile.read("song.wav")[0], 0.95 * sung / np.abs(sung).max(), atol=1e-4)
    assert "'u' is none of" in failure("sing", "--model", "reads", "--text", "u", "--out", "song.wav")
    assert "trained without texts" in failure("sing", "--text", "t a", "--out", "song.wav")


def test_the_default_temperature_is_that_of_the_interface():
    assert _parser().parse_args(["sing", "--out", "song.wav"]).temperature == DEFAULT_TEMPERATURE


def test_several_samples_are_numbered_and_continue_a_recording(folder):
    soundfile.write("hum.flac", 0.4 * np.sin(np.arange(60000) / 9), 44100)
    options = ["--prime", "hum.flac", "--prime-seconds", "0.3", "--temperature", "0.8", "--top-components", "1"]
    main(["sing", "--model", str(folder), "--seconds", "0.5", "--count", "2", *options, "--out", "song.wav"])
    assert sorted(path.name for path in Path().glob("*.wav")) == ["song-00.wav", "song-01.wav"]
    found = np.stack([soundfile.read(path)[0] for path in ("song-00.wav", "song-01.wav")])
    sung = melnet.load(folder, warm_up=False).sing(
        0.5, count=2, prime="hum.flac", prime_seconds=0.3, temperature=0.8, top_components=1
    )
    np.testing.assert_allclose(found, 0.95 * sung / np.abs(sung).max(axis=1, keepdims=True), atol=1e-4)


def test_a_pipe_gets_a_wav_file_and_a_reader_who_leaves_one_line(folder):
    command = [sys.executable, "-m", "melnet", "sing", "--model", str(folder), "--out", "-", "--seconds"]
    piped = subprocess.run([*command, "0.5"], cwd=ROOT, capture_output=True, check=True)
    audio, rate = soundfile.read(io.BytesIO(piped.stdout))
    assert (len(audio), rate) == (12000, 24000)
    assert np.abs(audio).max() == pytest.approx(0.95, abs=1e-3)
    with subprocess.Popen([*command, "5"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        lines = process.stderr.read().decode().splitlines()
    assert process.returncode == 1
    assert lines[-1] == "melnet: [Errno 32] Broken pipe"
    assert not [line for line in lines if "Traceback" in line or "Exception" in line]


def test_score_names_each_file(folder, capsys):
    soundfile.write("tone.wav", 0.4 * np.sin(np.arange(96000) / 9), 48000)
    Path("words.wav").write_text("words")
    message = failure("score", "words.wav", "tone.wav", "--singer", "bo")
    assert message == "melnet: 1 of 2 files cannot be scored"
    output = capsys.readouterr()
    assert output.err == "melnet: words.wav: not audio in any format that can be read\n"
    nats, name = output.out.split()
    expected = melnet.load(folder, warm_up=False).score(read_recording(Path("tone.wav"), 24000), 24000, singer="bo")
    assert (float(nats), name) == (pytest.approx(expected, abs=1e-4), "tone.wav")


def test_info_describes_the_model(capsys):
    main(["info"])
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["singers"] == "anna, bo"
    assert lines["spectrograms"] == "32 bands from 300 to 8000 Hz, a frame every 21.3 ms"
    assert lines["tier-1"].startswith("1 layers, hidden 6, lstm, 2 components, ")
    assert lines["vocoder"].endswith("it sings with vocoder")


def test_errors_are_one_line_and_leave_no_file(tmp_path):
    def failing(*options, out="song.wav"):
        return failure("sing", *options, "--out", out)

    assert "nowhere/melnet.json: no such file" in failing("--model", "nowhere")
    assert "argument --seconds: '0' is not a number above 0" in failing("--seconds", "0")
    assert "argument --temperature: 'warm' is not a number of at least 0" in failing("--temperature", "warm")
    assert "argument --count: '0' is not a whole number of at least 1" in failing("--count", "0")
    assert "the model does not know 'Cleo'; it knows anna, bo" in failing("--singer", "Cleo")
    assert "none.wav: cannot be read: No such file or directory" in failing("--prime", "none.wav")
    assert "--out models: a folder" in failing(out="models")
    assert "--count 2: a pipe takes one recording" in failing("--count", "2", out="-")
    assert "required: --out" in failure("sing")
    assert "COMMAND" in failure()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["models"]
    Path("file").touch()
    assert "file" in failing("--seconds", "0.1", out="file/song.wav")
