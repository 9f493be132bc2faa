"""Bringing a host up: with a server elsewhere, and the errors that stop it. tests/host tests a whole host."""

import socket
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.settings import get_current_settings

from pipeline import host
from pipeline.gpu import LIMIT


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "STATE", tmp_path / ".host")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for name in ("PREFECT_API_URL", "PREFECT_SERVER_API_PORT", "MELNET_FILES_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("server")
def test_a_server_elsewhere_is_used_and_its_limit_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", str(get_current_settings().api.url))
    started: dict[str, tuple[str, ...]] = {}

    def start(self: host.Host, name: str, *command: str) -> None:
        started[name] = command

    monkeypatch.setattr(host.Host, "_start", start)
    host.Host().up()
    assert list(started) == ["files", "worker-cpu", "worker-gpu"]
    assert started["worker-gpu"][:5] == ("prefect", "worker", "start", "--pool", "gpu")
    with get_client(sync_client=True) as client:
        assert {pool.name: pool.type for pool in client.read_work_pools()} == {"cpu": "process", "gpu": "process"}
        assert client.read_global_concurrency_limit_by_name(LIMIT).limit == 2
        deployed = {deployment.name: deployment.work_pool_name for deployment in client.read_deployments()}
    assert deployed == {"prepare": "cpu", "train": "gpu", "generate": "gpu", "repro": "gpu"}


def test_a_server_of_another_folder_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host.Host, "server_answers", lambda self: True)
    with pytest.raises(host.HostError, match=r"4200/api answers, but was not started from .*PREFECT_SERVER_API_PORT"):
        host.Host().up()


def test_a_port_that_is_taken_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(self: host.Host, name: str, *command: Any) -> None:
        if name != "server":
            works(self, name, *command)

    works = host.Host._start
    monkeypatch.setattr(host.Host, "_start", start)
    monkeypatch.setattr(host.Host, "server_answers", lambda self: True)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        monkeypatch.setenv("PREFECT_SERVER_API_PORT", str(port - 1))
        with pytest.raises(host.HostError, match=f"port {port} \\(pictures\\) is taken"):
            host.Host().up()


def test_pictures_may_be_served_by_another_address(monkeypatch: pytest.MonkeyPatch) -> None:
    assert host.Host().variables["MELNET_FILES_URL"] == "http://127.0.0.1:4201"
    monkeypatch.setenv("MELNET_FILES_URL", "https://gpu-1.example.org/pictures")
    assert host.Host().variables["MELNET_FILES_URL"] == "https://gpu-1.example.org/pictures"
