"""The live page's server: it sings, waits for its listeners, refuses, and stops when they leave."""

import json
import tempfile
import time
import warnings
from contextlib import contextmanager
from functools import partial

import httpx
import mido
import numpy as np
import pytest
import soundfile
from websockets import ConnectionClosed
from websockets.sync.client import connect

import melnet
from melnet.errors import MelnetError
from melnet.live import app as app_module
from melnet.live import uploads
from melnet.live.app import CHUNK_SECONDS, Live
from melnet.live.uploads import most_frames, read_upload
from melnet.notes import read_melody
from tests.live_server import serving, watch
from tests.small_model import FRAMES, MEL, SINGERS, TOLD, write_model

CHUNK = round(CHUNK_SECONDS * MEL.sample_rate)
START = {"temperature": 0.9, "top_components": None, "until": CHUNK, "seed": 3, "singer": "bo", "prime": None}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = write_model(tmp_path_factory.mktemp("model") / "models", singers=SINGERS)
    return melnet.load(folder)


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    return melnet.load(write_model(tmp_path_factory.mktemp("told") / "models", told=TOLD), warm_up=False)


@pytest.fixture(scope="module")
def served_told(told):
    with serving(Live(told, places=1)) as address:
        yield address


@pytest.fixture(scope="module")
def served(model):
    live = Live(model, places=1)
    streams = watch(live)
    with serving(live) as address:
        yield live, streams, address


@pytest.fixture
def live(served):
    return served[0]


@pytest.fixture
def streams(served):
    served[1].clear()
    return served[1]


@pytest.fixture
def client(served):
    with httpx.Client(base_url=f"http://{served[2]}", timeout=300) as client:
        yield client


@pytest.fixture
def connection(served):
    """Opens connections, which say nothing yet."""
    yield partial(connect, f"ws://{served[2]}/listen", compression=None)
    until(lambda: served[0].listening == 0)


@pytest.fixture
def listening(connection):
    """Opens connections of listeners, whose first message has some changes."""

    @contextmanager
    def open_connection(**changes):
        with connection() as socket:
            socket.send(json.dumps(START | changes))
            yield socket

    return open_connection


def chunk(socket):
    """Audio and frames of the next message."""
    content = socket.recv()
    samples, frames = np.frombuffer(content, "<u4", 2)
    values = np.frombuffer(content, "<f4", offset=8)
    return values[:samples], values[samples:].reshape(frames, MEL.n_mels)


def until(condition, seconds=1.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def recording(path, seconds, rate=24000):
    soundfile.write(path, 0.4 * np.sin(np.arange(round(seconds * rate)) * 2000 / rate), rate)
    return path


def test_it_sings_the_models_stream(listening, model):
    expected = model.stream(temperature=0.9, seed=3, singer="bo", chunk_seconds=CHUNK_SECONDS)
    with listening(until=3 * CHUNK) as socket:
        for _ in range(3):
            audio, log_mel = chunk(socket)
            np.testing.assert_allclose(audio, next(expected), atol=1e-5)
            np.testing.assert_array_equal(log_mel, expected.log_mel.reshape(-1, MEL.n_mels))


def test_it_draws_no_further_than_wanted_and_takes_new_settings(listening, streams):
    wish = {"temperature": 0.2, "top_components": 1}
    with listening(until=CHUNK + 1) as socket:
        chunk(socket), chunk(socket)
        time.sleep(0.3)
        assert streams[0].drawn == 2
        socket.send(json.dumps(wish | {"until": 2 * CHUNK + 1}))
        chunk(socket)
        settings = streams[0].settings
        assert (settings.temperature, settings.top_components) == (0.2, 1)


def test_nobody_gets_more_than_the_clock_allows(listening, streams, monkeypatch):
    monkeypatch.setattr(app_module, "MOST_AHEAD_SECONDS", 1.0)
    with listening(until=10**9) as socket:
        begun = time.monotonic()
        for _ in range(4):
            chunk(socket)
        time.sleep(0.3)
        assert streams[0].drawn <= (time.monotonic() - begun + 1) / CHUNK_SECONDS + 2


def test_who_leaves_ends_the_work(listening, live, streams):
    with listening(until=10**9) as socket:
        chunk(socket)
        assert live.listening == 1
    until(lambda: live.listening == 0)
    time.sleep(0.2)  # in which the chunk that was drawn is finished
    drawn = streams[0].drawn
    time.sleep(0.5)
    assert streams[0].drawn == drawn


def test_the_one_too_many_is_told_so(connection, listening, live):
    with listening() as first:
        chunk(first)
        with connection() as second:
            assert "this machine sings to one at a time" in json.loads(second.recv())["error"]
            with pytest.raises(ConnectionClosed):
                second.recv()
    until(lambda: live.listening == 0)
    with listening() as third:
        chunk(third)


def test_another_song_needs_no_further_place(listening, streams):
    with listening() as first:
        chunk(first)
        with listening(seed=4) as second:  # before the first has left
            first.close()
            chunk(second)
    assert len(streams) == 2


def test_listeners_take_turns(model):
    live = Live(model, places=2)
    streams = watch(live)
    with (
        serving(live) as address,
        connect(f"ws://{address}/listen") as first,
        connect(f"ws://{address}/listen") as other,
    ):
        for socket in (first, other):
            socket.send(json.dumps(START | {"until": 10**9}))
        for _ in range(20):
            chunk(first)
        assert streams[1].drawn >= 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": -1}, "temperature: Input should be greater than or equal to 0"),
        ({"temperature": float("nan")}, "temperature: "),
        ({"seed": "x"}, "seed: Input should be a valid integer"),
        ({"volume": 1}, "volume: Extra inputs are not permitted"),
        ({"singer": "Cleo"}, "the model does not know 'Cleo'; it knows anna, bo"),
        ({"prime": "gone"}, "The recording to continue is not here any more"),
        ({"score": "gone"}, "The score is not here any more"),
    ],
)
def test_a_wrong_message_is_answered_in_one_line(listening, changes, message):
    with listening(**changes) as socket:
        error = json.loads(socket.recv())["error"]
    assert error.startswith(message) and len(error.splitlines()) == 1


def test_who_says_nothing_makes_room(connection, listening, monkeypatch):
    monkeypatch.setattr(app_module, "SILENT_SECONDS", 0.1)
    for silent in (connection(), listening()):
        with silent as socket:
            text = next(message for message in socket if isinstance(message, str))
            assert "has not been heard of" in json.loads(text)["error"]


def test_an_upload_is_continued(client, listening, model, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    path = recording(tmp_path / "hum.flac", 1.0, 44100)
    answer = client.post("/prime", content=path.read_bytes()).json()
    assert answer["seconds"] == pytest.approx(4 * FRAMES * MEL.seconds_per_frame)  # whole slices of 0.21 s
    expected = model.stream(
        temperature=0.9, seed=3, singer="bo", prime=path, prime_seconds=answer["seconds"], chunk_seconds=CHUNK_SECONDS
    )
    with listening(prime=answer["prime"]) as socket:
        np.testing.assert_allclose(chunk(socket)[0], next(expected), atol=1e-5)
    assert not list((tmp_path / "temporary").glob("melnet-live-*"))


def test_what_cannot_be_continued_is_refused_with_the_reason(client, tmp_path, monkeypatch):
    def refusal(content):
        response = client.post("/prime", content=content)
        assert response.status_code == 422
        return response.json()["error"]

    assert refusal(b"words") == "not audio in any format that can be read"
    assert refusal(b"") == "empty: it holds no bytes"
    whole = recording(tmp_path / "a.wav", 0.5).read_bytes()
    assert refusal(whole[:-100]).startswith("truncated: ")
    assert "too short to continue" in refusal(recording(tmp_path / "a.wav", 0.2).read_bytes())
    assert "longer than 10 minutes" in refusal(recording(tmp_path / "a.wav", 700, 100).read_bytes())
    soundfile.write(tmp_path / "a.wav", np.zeros(24000), 24000)
    assert "zero" in refusal((tmp_path / "a.wav").read_bytes())
    monkeypatch.setattr(app_module, "MOST_BYTES", 2**20)
    assert refusal(bytes(2**20 + 1)) == "larger than 1 MB; upload its end"


def test_old_primes_make_room_for_new_ones(client, listening, tmp_path, monkeypatch):
    monkeypatch.setattr(app_module, "KEPT_UPLOADS", 1)
    content = recording(tmp_path / "a.wav", 0.5).read_bytes()
    old, new = (client.post("/prime", content=content).json()["prime"] for _ in range(2))
    with listening(prime=old) as socket:
        assert "upload it again" in json.loads(socket.recv())["error"]
    with listening(prime=new) as socket:
        chunk(socket)


def test_a_score_is_sung_and_the_voice_goes_on(served_told, told, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    (tmp_path / "song.txt").write_text("tempo 300\nA3 1 t a\nC4 1 a")
    notes, ticks = read_melody(tmp_path / "song.txt"), 480
    track = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(300))])
    for note in notes:
        track.append(mido.MetaMessage("lyrics", text=note.lyric))
        track.append(mido.Message("note_on", note=note.pitch))
        track.append(mido.Message("note_off", note=note.pitch, time=ticks))
    mido.MidiFile(ticks_per_beat=ticks, tracks=[track]).save(tmp_path / "song.MID")
    recording(tmp_path / "hum.flac", 0.5, 44100)
    unsung = told.stream(temperature=0.9, seed=3, chunk_seconds=CHUNK_SECONDS)
    free = np.concatenate([next(unsung) for _ in range(8)])
    for name, transpose, warned in (("song.txt", 0, False), ("song.MID", 20, True), ("hum.flac", -1, False)):
        query = {"name": name, "transpose": transpose}
        content = (tmp_path / name).read_bytes()
        answer = httpx.post(f"http://{served_told}/score", params=query, content=content, timeout=300).json()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            score = told.read_score(tmp_path / name, transpose=transpose)
        assert answer["seconds"] == pytest.approx(score.frames * MEL.seconds_per_frame)
        assert [f"{tmp_path / name}: {answer['notice']}"] * warned == [str(warning.message) for warning in caught]
        expected = told.stream(score=score, temperature=0.9, seed=3, chunk_seconds=CHUNK_SECONDS)
        start = START | {"singer": None, "score": answer["score"], "until": 10**9}
        with connect(f"ws://{served_told}/listen") as socket:
            socket.send(json.dumps(start))
            sung = np.concatenate([chunk(socket)[0] for _ in range(8)])
        np.testing.assert_allclose(sung, np.concatenate([next(expected) for _ in range(8)]), atol=1e-4)
        assert len(sung) > score.frames * MEL.hop_length
        assert np.abs(sung - free).max() > 0.01
    assert not list((tmp_path / "temporary").iterdir())


def test_what_is_no_score_is_refused_with_the_reason(served_told, client, told, tmp_path, monkeypatch):
    def refusal(name, content, address=f"http://{served_told}", **query):
        response = httpx.post(f"{address}/score", params={"name": name} | query, content=content, timeout=300)
        error = response.json()["error"]
        assert response.status_code == 422 and len(error.splitlines()) == 1 and "upload" not in error
        return error

    assert refusal("a.txt", b"These are words.").startswith("line 1: expected a number of beats")
    assert refusal("a.mid", b"These are words.").startswith("not a MIDI file, or damaged: ")
    assert refusal("a.flac", b"These are words.") == "not audio in any format that can be read"
    assert refusal("a.TXT", b"A4 1 x").endswith("is none of the model's phonemes: a, t")
    assert refusal("a.txt", b"A4 1", transpose=49) == "transpose: 49.0 is not between -48 and 48 semitones"
    assert refusal("a.txt", b"A4 1", transpose="up").startswith("transpose: Input should be a valid number")
    assert refusal("a.txt", b"A4 1", tempo=2) == "tempo: Extra inputs are not permitted"
    assert refusal("a.txt", b"tempo 60\nA4 601") == "longer than 10 minutes"
    assert refusal("a.txt", bytes(2**20 + 1)) == "larger than 1 MB, the most for notes"
    untold = "the model was trained without melody, and takes no score"
    assert refusal("a.txt", b"A4 1", str(client.base_url)) == untold
    long = recording(tmp_path / "a.wav", 700, 100)
    with pytest.raises(MelnetError, match="longer than 10 minutes by its header"):
        uploads.read_uploaded_score(long, told, 0)


def test_the_longest_prime_is_of_whole_slices(model, tmp_path):
    prime = read_upload(recording(tmp_path / "a.wav", 6), model.config)
    assert len(prime.log_mel) == most_frames(model.config) == 180
    assert len(prime.signal) == 180 * MEL.hop_length
    assert uploads.PRIME_SECONDS - 180 * MEL.seconds_per_frame < FRAMES * MEL.seconds_per_frame


def test_the_page_describes_the_model_and_may_load_nothing_from_elsewhere(client):
    described = client.get("/model").json()
    assert (described["singers"], described["components"], described["takesScore"]) == (SINGERS, 2, False)
    page = client.get("/")
    assert "default-src 'self'" in page.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://example.org"},
        {"origin": "http://127.0.0.1:1"},
        {"origin": "null"},
        {"host": "example.org"},
        {"host": "example.org", "origin": "http://example.org"},
        {"host": "[oops"},
    ],
)
def test_other_pages_cannot_drive_it(client, live, headers):
    for response in (client.get("/model", headers=headers), client.post("/prime", content=b"", headers=headers)):
        assert (response.status_code, response.text.splitlines()[1:]) == (403, [])
    upgrade = {
        "connection": "upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "x3JJHMbDL1EzLkh9GBhXDw==",
    }
    assert client.get("/listen", headers=upgrade | headers).status_code == 403
    assert live.listening == 0


def test_its_own_page_can(client, connection, served):
    with connection(origin=f"http://{served[2]}") as socket:
        socket.send(json.dumps(START))
        chunk(socket)
    assert client.get("/model", headers={"host": "10.0.0.5:8765", "origin": "http://10.0.0.5:8765"}).status_code == 200
