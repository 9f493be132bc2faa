"""Brings a GPU host up and down: Prefect server, file server, work pools, the limit `gpu`, deployments and workers.

``python -m pipeline.host up`` starts what is not running yet, so it can be repeated; ``down`` ends what it started and
nothing else. Logs, process ids and the pictures that artifacts link to are in .host/.

Without PREFECT_API_URL a server is started on loopback, on PREFECT_SERVER_API_PORT (4200); its database is Prefect's
SQLite file unless PREFECT_SERVER_DATABASE_CONNECTION_URL names another. With PREFECT_API_URL that server is used.
"""

import argparse
import os
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, WorkPoolCreate
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.exceptions import ObjectAlreadyExists
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from prefect.workers.process import ProcessWorker

from pipeline.gpu import LIMIT
from pipeline.graph import environment
from pipeline.process_tree import end_process_trees, processes_with
from stages.execution.gpus import GpuError, gpus

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".host"
POOLS = ("cpu", "gpu")
SERVICES = ("server", "files", *(f"worker-{pool}" for pool in POOLS))  # in the order in which they start
SERVICE = "MELNET_SERVICE"  # environment variable of every process that a service started, directly or not
SERVER_TIMEOUT = 300.0  # s for a server to answer; a server that has ended is noticed at once


class HostError(RuntimeError):
    """This host is not set up as it must be; the message tells its owner what to do."""


class Host:
    """The services of this host, and the environment variables that they share."""

    def __init__(self) -> None:
        self.own_server = "PREFECT_API_URL" not in os.environ
        self.port = int(os.environ.get("PREFECT_SERVER_API_PORT", "4200"))
        self.api = os.environ.get("PREFECT_API_URL", f"http://127.0.0.1:{self.port}/api")
        self.files_port = self.port + 1
        self.variables = environment(
            {
                "PREFECT_API_URL": self.api,
                "PYTHONPATH": str(ROOT),
                "PWD": str(ROOT),  # the folder of runs in prefect.yaml
                "DO_NOT_TRACK": "1",
                "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
                "PREFECT_CLIENT_MAX_RETRIES": "8",  # within nine minutes; the default of 5 gives up after one
                "MELNET_FILES": str(STATE / "files"),
            }
        )
        self.variables.setdefault("MELNET_FILES_URL", f"http://127.0.0.1:{self.files_port}")
        if secret := os.environ.get("PREFECT_SERVER_API_AUTH_STRING"):  # workers must send what the server asks for
            self.variables.setdefault("PREFECT_API_AUTH_STRING", secret)

    def up(self) -> None:
        """Start the services that are not running, and deploy."""
        files = STATE / "files"
        files.mkdir(parents=True, exist_ok=True)
        slots = max(1, len(gpus()))
        if self.own_server:
            self._start("server", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self.port))
        self._wait_for_server()
        self._start("files", "http.server", "--bind", "127.0.0.1", "--directory", str(files), str(self.files_port))
        settings = {PREFECT_API_URL: self.api}
        if secret := self.variables.get("PREFECT_API_AUTH_STRING"):
            settings[PREFECT_API_AUTH_STRING] = secret
        with temporary_settings(settings), get_client(sync_client=True) as client:
            template = ProcessWorker.get_default_base_job_template()
            for pool in POOLS:
                with suppress(ObjectAlreadyExists):
                    client.create_work_pool(WorkPoolCreate(name=pool, type="process", base_job_template=template))
            if self.own_server:
                client.upsert_global_concurrency_limit_by_name(LIMIT, slots)
            else:  # several hosts may share the server: an existing limit is the sum of their GPUs
                with suppress(ObjectAlreadyExists):
                    client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=LIMIT, limit=slots))
            self._deploy(client)
        for pool in POOLS:
            name = f"{pool}@{socket.gethostname()}"
            self._start(f"worker-{pool}", "prefect", "worker", "start", "--pool", pool, "--name", name)
        print(f"Up: {self.api.removesuffix('/api')}, {slots} slot(s) of the limit {LIMIT!r}, logs in {STATE}")
        print("Try:  prefect deployment run melnet/train --watch")

    def down(self) -> None:
        """End the services, the last one first, with all processes that they started."""
        for name in reversed(SERVICES):
            # Not only the descendants of the service: runs of a worker that was killed are nobody's children.
            if processes := processes_with(SERVICE, f"{ROOT} {name}"):
                end_process_trees(*processes)
                print(f"ended {name}")
            _pid_file(name).unlink(missing_ok=True)

    def server_answers(self) -> bool:
        try:
            return httpx.get(f"{self.api}/health", timeout=5).status_code < 500
        except httpx.TransportError:
            return False

    def _start(self, name: str, module: str, *arguments: str) -> None:
        """Start ``python -m module arguments`` in the background, unless the service is running already."""
        if _is_running(name):
            print(f"{name} runs already")
            return
        if name == "server" and self.server_answers():
            raise HostError(
                f"{self.api} answers, but was not started from {ROOT}: set PREFECT_API_URL={self.api} to use it, "
                "or PREFECT_SERVER_API_PORT to start another"
            )
        if name == "files":
            try:
                socket.create_server(("127.0.0.1", self.files_port)).close()
            except OSError as error:
                raise HostError(
                    f"port {self.files_port} (pictures) is taken: set PREFECT_SERVER_API_PORT, one less, to another"
                ) from error
        with (STATE / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=ROOT,
                env={**self.variables, SERVICE: f"{ROOT} {name}"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # outlives this terminal
            )
        _pid_file(name).write_text(f"{process.pid}", encoding="utf-8")
        print(f"started {name} (process {process.pid})")

    def _wait_for_server(self) -> None:
        deadline = time.monotonic() + SERVER_TIMEOUT
        while not self.server_answers():
            if self.own_server and not _is_running("server"):
                last = (STATE / "server.log").read_text(errors="replace").splitlines()[-10:]
                raise HostError("\n".join(["server ended at once:", *last]))
            if time.monotonic() > deadline:
                raise HostError(f"{self.api} did not answer within {SERVER_TIMEOUT:.0f} s")
            time.sleep(0.5)

    def _deploy(self, client: SyncPrefectClient) -> None:
        """Deploy everything in prefect.yaml. That replaces all schedules, so those that were active are reactivated."""
        ours = FlowFilter(name=FlowFilterName(any_=["melnet"]))
        deployed = client.read_deployments(flow_filter=ours)
        active = {(found.name, schedule.slug) for found in deployed for schedule in found.schedules if schedule.active}
        command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
        done = subprocess.run(command, cwd=ROOT, env=self.variables, capture_output=True, text=True)
        if done.returncode:
            raise HostError(f"prefect deploy --all:\n{done.stdout}{done.stderr}")
        for found in client.read_deployments(flow_filter=ours):
            for schedule in found.schedules:
                if (found.name, schedule.slug) in active:
                    client.update_deployment_schedule(found.id, schedule.id, active=True)


def _pid_file(name: str) -> Path:
    return STATE / f"{name}.pid"


def _is_running(name: str) -> bool:
    """Return whether the service itself is running, and not only processes that it started."""
    pid = _pid_file(name).read_text() if _pid_file(name).exists() else ""
    # The id alone is not enough, since it may belong to another process by now.
    return pid in {f"{process.pid}" for process in processes_with(SERVICE, f"{ROOT} {name}")}


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
