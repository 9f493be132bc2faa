"""A corpus at a URL gives the same results as the same corpus in a folder."""

import functools
import http.server
import threading

import fsspec
import pytest
from fsspec.spec import AbstractFileSystem

from stages.command import StageError
from stages.corpus.conversion import Job, convert_file
from stages.corpus.manifest import MANIFEST
from stages.corpus.remote import walk_url
from stages.downsample import downsample
from tests.stages.conftest import write_params
from tests.stages.test_downsample import OUTPUT, SETTINGS, tone


class Store(AbstractFileSystem):
    """An object store with names of all kinds and a network that fails."""

    protocol = "store"
    names = ("a.wav", "b/c.wav", "../escape.wav", "b//d.wav", "b/./e.wav", ".hidden.wav", ".hidden/f.wav", "zero\0.wav")

    def find(self, path, **_):
        return [f"{path}/{name}" for name in self.names]

    def get_file(self, *_, **__):
        raise TimeoutError("no route to host")


@pytest.fixture
def store():
    fsspec.register_implementation("store", Store, clobber=True)
    return "store://bucket"


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A corpus in a folder, and the URL of a server on loopback that serves that folder."""
    monkeypatch.chdir(tmp_path)
    tone(tmp_path / "corpus/kerstin/a.wav", seconds=1.5, sample_rate=44100, channels=2)
    tone(tmp_path / "corpus/kerstin/b.flac", sample_rate=48000)
    (tmp_path / "corpus/notes.txt").write_text("a note")
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    handler = functools.partial(quiet, directory=tmp_path / "corpus")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield tmp_path / "corpus", f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def made(corpus, folder):
    """The results of the stage by path, as bytes."""
    downsample(write_params(folder, {"corpus": {"path": str(corpus)}}))
    return {path.relative_to(OUTPUT): path.read_bytes() for path in OUTPUT.rglob("*") if path.is_file()}


def test_a_corpus_at_a_url_becomes_what_a_folder_does(served, tmp_path):
    folder, url = served
    from_folder = made(folder, tmp_path)
    assert sorted(str(path) for path in from_folder) == ["kerstin/a.flac", "kerstin/b.flac", MANIFEST]
    assert made(url, tmp_path) == from_folder
    assert made(f"file://{folder}", tmp_path) == from_folder


def test_names_that_no_folder_can_hold_are_not_used(store):
    found = {item.path.as_posix(): item.problem for item in walk_url(store)}
    odd = "a name that no folder can hold"
    assert found == {
        "a.wav": None,
        "b/c.wav": None,
        "../escape.wav": odd,
        "b/d.wav": odd,
        "b/e.wav": odd,
        ".hidden.wav": "hidden file",
        "zero.wav": odd,
    }


def test_a_network_that_fails_leaves_no_recording_out(store, tmp_path):
    with pytest.raises(StageError, match=r"^store://bucket/a\.wav cannot be read: no route to host$"):
        convert_file(Job(f"{store}/a.wav", "a.wav", None, tmp_path, "a.flac", None, SETTINGS))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nothing://bucket", r"nothing://bucket cannot be listed: Protocol not known: nothing$"),
        ("file:///no/such/folder", r"file:///no/such/folder holds no files$"),
    ],
)
def test_a_url_that_leads_nowhere_is_named(url, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StageError, match=r"^corpus\.path: " + message):
        downsample(write_params(tmp_path, {"corpus": {"path": url}}))
