"""Bring a GPU host up and down: server, work pools, the limit `gpu`, deployments and workers.

``python -m pipeline.host up`` starts what does not run yet, so it can be run again; ``down`` ends exactly what it
started. Logs, process ids and the pictures that artifacts link to are in .host/.

Without PREFECT_API_URL a server is started on loopback, on PREFECT_SERVER_API_PORT (4200); its database is Prefect's
SQLite file unless PREFECT_SERVER_DATABASE_CONNECTION_URL names another. With PREFECT_API_URL that server is used.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, GlobalConcurrencyLimitUpdate, WorkPoolCreate
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from prefect.workers.process import ProcessWorker

from pipeline.gpu import LIMIT, GpuError, devices
from pipeline.graph import environment
from pipeline.process_tree import end, marked

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".host"
STARTED = STATE / "started.json"
POOLS = ("cpu", "gpu")
REPRO = "melnet/repro"
PATIENCE = 300.0  # s for a server to answer; one that has ended is noticed at once


class HostError(RuntimeError):
    """Something on this host is not as it must be; the message is for its owner."""


class Host:
    """What was started on this host, and the settings that all of it shares."""

    def __init__(self) -> None:
        self.own_server = "PREFECT_API_URL" not in os.environ
        self.port = int(os.environ.get("PREFECT_SERVER_API_PORT", "4200"))
        self.api = os.environ.get("PREFECT_API_URL", f"http://127.0.0.1:{self.port}/api")
        self.files_port = self.port + 1
        self.variables = environment(
            {
                "PREFECT_API_URL": self.api,
                "PYTHONPATH": str(ROOT),
                "PWD": str(ROOT),  # prefect.yaml deploys it as the folder of runs
                "DO_NOT_TRACK": "1",
                "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
                "PREFECT_CLIENT_MAX_RETRIES": "8",  # nine minutes; the default 5 outlast a server that is away for one
                "MELNET_FILES": str(STATE / "files"),
            }
        )
        self.variables.setdefault("MELNET_FILES_URL", f"http://127.0.0.1:{self.files_port}")
        if secret := os.environ.get("PREFECT_SERVER_API_AUTH_STRING"):  # what the server asks for, its workers say
            self.variables.setdefault("PREFECT_API_AUTH_STRING", secret)
        self.started: dict[str, dict[str, Any]] = json.loads(STARTED.read_text()) if STARTED.exists() else {}

    def up(self) -> None:
        """Start what does not run; deploy."""
        (STATE / "files").mkdir(parents=True, exist_ok=True)
        slots = max(1, len(devices()))
        if self.own_server:
            self._start("server", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self.port))
        self._wait()
        self._start(
            "files", "http.server", "--bind", "127.0.0.1", "--directory", str(STATE / "files"), str(self.files_port)
        )
        settings = {PREFECT_API_URL: self.api}
        if secret := self.variables.get("PREFECT_API_AUTH_STRING"):
            settings[PREFECT_API_AUTH_STRING] = secret
        with temporary_settings(settings), get_client(sync_client=True) as client:
            for pool in POOLS:
                self._create_pool(client, pool)
            self._limit(client, slots)
            self._deploy(client)
        for pool in POOLS:
            name = f"{pool}@{socket.gethostname()}"
            self._start(f"worker-{pool}", "prefect", "worker", "start", "--pool", pool, "--name", name)
        print(f"Up: {self.api.removesuffix('/api')}, {slots} slot(s) of the limit {LIMIT!r}, logs in {STATE}")
        print("Try:  prefect deployment run melnet/train --watch")

    def down(self) -> None:
        """End what was started, newest first, with all that it started itself."""
        for name in reversed(list(self.started)):
            process = self._process(name)
            if process is not None:
                end(process)
                print(f"ended {name}")
            del self.started[name]
            self._save()
        # Runs whose worker was killed are nobody's children now; what it was started with tells them.
        for process in marked("MELNET_FILES", self.variables["MELNET_FILES"]):
            end(process)
            print(f"ended process {process.pid}, left by a worker that was killed")

    def answers(self) -> bool:
        """Whether the server is there."""
        try:
            return httpx.get(f"{self.api}/health", timeout=5).status_code < 500
        except httpx.TransportError:
            return False

    def _start(self, name: str, module: str, *arguments: str) -> None:
        if self._process(name) is not None:
            print(f"{name} runs already")
            return
        if name == "server" and self.answers():
            raise HostError(
                f"{self.api} answers, but was not started from {ROOT}: set PREFECT_API_URL={self.api} to use it, "
                "or PREFECT_SERVER_API_PORT to start another"
            )
        if name == "files" and _taken(self.files_port):
            raise HostError(
                f"port {self.files_port} (pictures) is taken: name another by PREFECT_SERVER_API_PORT, one less"
            )
        with (STATE / f"{name}.log").open("ab") as log:
            # A session of its own: it outlives this terminal.
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=ROOT,
                env=self.variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        # A process id alone may be another process's by the time of `down`.
        self.started[name] = {"pid": process.pid, "created": psutil.Process(process.pid).create_time()}
        self._save()
        print(f"started {name} (process {process.pid})")

    def _process(self, name: str) -> psutil.Process | None:
        entry = self.started.get(name)
        if entry is None or not psutil.pid_exists(entry["pid"]):
            return None
        process = psutil.Process(entry["pid"])
        alive = process.create_time() == entry["created"] and process.status() != psutil.STATUS_ZOMBIE
        return process if alive else None

    def _wait(self) -> None:
        """Wait for the server to answer."""
        deadline = time.monotonic() + PATIENCE
        while not self.answers():
            if self.own_server and self._process("server") is None:
                last = (STATE / "server.log").read_text(errors="replace").splitlines()[-10:]
                raise HostError("\n".join(["server ended at once:", *last]))
            if time.monotonic() > deadline:
                raise HostError(f"{self.api} did not answer within {PATIENCE:.0f} s")
            time.sleep(0.5)

    def _create_pool(self, client: SyncPrefectClient, name: str) -> None:
        try:
            client.read_work_pool(name)
        except ObjectNotFound:
            template = ProcessWorker.get_default_base_job_template()
            client.create_work_pool(WorkPoolCreate(name=name, type="process", base_job_template=template))

    def _limit(self, client: SyncPrefectClient, slots: int) -> None:
        try:
            client.read_global_concurrency_limit_by_name(LIMIT)
        except ObjectNotFound:
            client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=LIMIT, limit=slots))
        else:
            if self.own_server:  # on a team's server the limit is the sum of its hosts
                client.update_global_concurrency_limit(LIMIT, GlobalConcurrencyLimitUpdate(limit=slots))

    def _deploy(self, client: SyncPrefectClient) -> None:
        """Deploy all; a schedule that was switched on stays on."""
        on = any(schedule.active for schedule in _schedules(client))
        command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
        done = subprocess.run(command, cwd=ROOT, env=self.variables, capture_output=True, text=True)
        if done.returncode:
            raise HostError(f"prefect deploy --all:\n{done.stdout}{done.stderr}")
        for schedule in _schedules(client) if on else []:
            assert schedule.deployment_id is not None
            client.update_deployment_schedule(schedule.deployment_id, schedule.id, active=True)

    def _save(self) -> None:
        STARTED.write_text(json.dumps(self.started, indent=2) + "\n", encoding="utf-8")


def _schedules(client: SyncPrefectClient) -> list[DeploymentSchedule]:
    """The nightly schedule, once it is deployed."""
    try:
        return client.read_deployment_by_name(REPRO).schedules
    except ObjectNotFound:
        return []


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the file server does
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def main() -> None:
    """Bring this host up or down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["up", "down"])
    action = parser.parse_args().action
    try:
        host = Host()
        host.up() if action == "up" else host.down()
    except (HostError, GpuError, httpx.HTTPStatusError) as error:  # the last: the server asks for a password
        sys.exit(f"host: {error}")


if __name__ == "__main__":
    main()
