"""The command `melnet live`: errors of one line, and a server in a folder that holds nothing but a model."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from melnet.command_line import main
from melnet.live.server import listening_socket, own_names
from tests.small_model import write_model

ROOT = Path(__file__).parents[3]


def failure(*arguments):
    with pytest.raises(SystemExit) as caught:
        main(["live", "--no-browser", *arguments])
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_errors_are_one_line(tmp_path):
    with listening_socket("127.0.0.1", 0) as taken:
        port = str(taken.getsockname()[1])
        assert f"melnet: --host 127.0.0.1 --port {port}: Address already in use" in failure("--port", port)
    assert "--port 65536: " in failure("--port", "65536")
    assert "--host nowhere.invalid" in failure("--host", "nowhere.invalid")
    assert "melnet.json: no such file" in failure("--model", str(tmp_path), "--port", "0")
    (write_model(tmp_path) / "tier-1.weights.h5").write_bytes(b"cut")
    assert "tier-1.weights.h5: damaged" in failure("--model", str(tmp_path), "--port", "0")
    assert "argument --listeners: '0' is not a whole number of at least 1" in failure("--listeners", "0")


def test_names_of_this_machine():
    assert {"localhost", "music.example.org", socket.gethostname().lower()} <= set(own_names("Music.example.org"))


def test_it_serves_with_nothing_but_a_model(tmp_path):
    write_model(tmp_path / "models")
    command = [sys.executable, "-m", "melnet", "live", "--host", "0.0.0.0", "--port", "0", "--no-browser"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as process:
        lines = []
        while not lines or "Ctrl-C" not in lines[-1]:
            lines.append(process.stderr.readline())
            assert lines[-1], lines
        port = lines[-1].partition("  ")[0].rpartition(":")[2].strip("/")
        assert "MelNet live" in httpx.get(f"http://127.0.0.1:{port}/").text
        assert httpx.get(f"http://127.0.0.1:{port}/model", headers={"host": "example.org"}).status_code == 403
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == ""
    assert process.returncode == 0
    assert any("times as fast as real time; listeners at a time: " in line for line in lines)
    assert any(line.startswith("warning: whoever reaches 0.0.0.0 ") for line in lines)
    assert [path.name for path in tmp_path.iterdir()] == ["models"]
