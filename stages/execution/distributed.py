"""A training by several processes on one or more hosts, under JAX, with the results that one process would have.

Each process of the user's is a pair. The one that was started watches; the other, which it starts, trains. JAX ends a
process at once, and with a stack trace, when another is lost; a sum over GPUs waits for ever. So neither could say what
has happened. The watching processes hold connections to the first of them, compare before the training what all have
to agree on, and end their training processes when one of them is lost. They send each other lines of JSON, no code.

Nothing here changes a result, so no stage of the graph depends on this module.
"""

import atexit
import json
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NoReturn

from stages.command import StageError
from stages.parameters import ADDRESS, Execution

# Settings and the variables that come before them: those that JAX's own programs look at.
VARIABLES = {
    "coordinator": "JAX_COORDINATOR_ADDRESS",
    "processes": "JAX_NUM_PROCESSES",
    "index": "JAX_PROCESS_ID",
}
TRAINS = "MELNET_TRAINS"  # tells the training process that it is one, and what it needs
JOIN_SECONDS = 300.0  # until all have come
PING_SECONDS = 5.0
SILENCE_SECONDS = 30.0  # after which one is lost, and a training process hangs
HEARTBEAT_SECONDS = 40  # the same between the training processes, where JAX watches; after us, who say which
GRACE_SECONDS = 5.0  # for the news why a training process may have failed
UNEXPECTED = 70  # exit status of a training process whose error was not said in one line
TAIL = 6000  # characters of what it said then


@dataclass(frozen=True)
class Processes:
    """All processes and which of them this is."""

    host: str
    port: int
    count: int
    index: int

    def name(self, index: int, host: str) -> str:
        """How messages call one of them."""
        return f"process {index} of {self.count} ({host})"


def processes(execution: Execution) -> Processes | None:
    """What the settings and, before them, the environment say; None for a process on its own.

    Raises
    ------
    StageError
        If some of them are missing, or do not fit together.
    """
    values: dict[str, Any] = {}
    for key, variable in VARIABLES.items():
        values[key], text = getattr(execution, key), os.environ.get(variable)
        if text:
            try:
                values[key] = text if key == "coordinator" else int(text)
            except ValueError:
                raise StageError(f"{variable}: {text!r} is no whole number") from None
    given = {key: value for key, value in values.items() if value is not None}
    if not given or values["processes"] == 1:
        return None
    for key, variable in VARIABLES.items():
        if key not in given:
            known = ", ".join(f"{name}: {value}" for name, value in given.items())
            raise StageError(f"execution.{key} (or {variable}) is missing, but there is {known}")
    if not re.fullmatch(ADDRESS, values["coordinator"]):
        raise StageError(f"execution.coordinator: {values['coordinator']!r} is not host:port")
    if not 0 <= values["index"] < values["processes"]:
        raise StageError(
            f"execution.index: {values['index']} is none of the {values['processes']} processes, which count from 0"
        )
    host, _, port = values["coordinator"].rpartition(":")
    return Processes(host.strip("[]"), int(port), values["processes"], values["index"])


class Peer:
    """A connection to another watching process, in lines of JSON."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.index, self.host, self.agreed = 0, "", {}  # type: int, str, dict[str, Any]
        self.heard = time.monotonic()
        self._read = b""

    def send(self, **message: Any) -> None:
        """Send, unless it is gone: then the next reading finds out."""
        with suppress(OSError):
            self.socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> list[dict[str, Any]]:
        """What has come; raises :class:`ConnectionError` at the end."""
        try:
            data = self.socket.recv(65536)
        except TimeoutError:
            return []
        except OSError as error:
            raise ConnectionError from error
        if not data:
            raise ConnectionError
        self.heard = time.monotonic()
        *lines, self._read = (self._read + data).split(b"\n")
        try:
            return [dict(json.loads(line)) for line in lines]
        except (ValueError, TypeError) as error:
            raise ConnectionError from error  # not one of us

    def first(self, deadline: float) -> dict[str, Any]:
        """The next message; raises :class:`ConnectionError` or :class:`TimeoutError`."""
        while time.monotonic() < deadline:
            self.socket.settimeout(min(1.0, max(0.01, deadline - time.monotonic())))
            if messages := self.receive():
                return messages[0]
        raise TimeoutError


def is_training() -> bool:
    """Whether this is the training process of a pair."""
    return TRAINS in os.environ


def watch(this: Processes, agreed: dict[str, Any], where: Callable[[], str]) -> None:
    """Let a process of the same command train together with the others, and return when all have done so.

    Parameters
    ----------
    agreed
        What has to be the same for all processes, by name.
    where
        Says how far the training had come, for the message that one was lost.

    Raises
    ------
    StageError
        If they do not find each other or do not agree, or if one is lost.
    SystemExit
        With the status of the training process, which has said why it failed.
    """
    print(f"process {this.index} of {this.count}: meeting the others at {this.host}:{this.port}", flush=True)
    with ExitStack() as stack:
        meet = _gather if this.index == 0 else _report
        peers, address = meet(this, agreed, stack)
        _Watch(this, peers, where).run(address, stack)


def _gather(this: Processes, agreed: dict[str, Any], stack: ExitStack) -> tuple[list[Peer], str]:
    """Process 0: wait for the others, compare, and say where the training processes meet."""
    where = f"execution.coordinator: {this.host}:{this.port}"
    try:
        family = socket.getaddrinfo(this.host, this.port, type=socket.SOCK_STREAM)[0][0]
        listener = stack.enter_context(closing(socket.create_server((this.host, this.port), family=family)))
    except OSError as error:
        raise StageError(f"{where}: process 0 cannot listen there: {error.strerror or error}") from error
    peers: dict[int, Peer] = {}
    deadline = time.monotonic() + JOIN_SECONDS
    while len(peers) < this.count - 1:
        listener.settimeout(max(0.01, deadline - time.monotonic()))
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            missing = ", ".join(str(index) for index in range(1, this.count) if index not in peers)
            raise StageError(
                f"{where}: process {missing} of {this.count} did not come in {JOIN_SECONDS:.0f} s"
            ) from None
        peer = Peer(stack.enter_context(closing(connection)))
        try:
            hello = peer.first(min(deadline, time.monotonic() + 10))
            peer.index, peer.host, peer.agreed = int(hello["index"]), str(hello["host"]), dict(hello["agreed"])
            count = int(hello["count"])
        except (OSError, KeyError, ValueError, TypeError):
            connection.close()  # a port scanner, say
            continue
        problem = None
        if count != this.count:
            problem = f"execution.processes: {this.count} for process 0, {count} for process {peer.index} ({peer.host})"
        elif peer.index in peers or not 0 < peer.index < this.count:
            other = peers[peer.index].host if peer.index in peers else this.host
            problem = f"execution.index: {peer.index} twice, on {other} and on {peer.host}"
        elif differ := [key for key in agreed if peer.agreed.get(key) != agreed[key]]:
            mine, theirs = agreed[differ[0]], peer.agreed.get(differ[0])
            problem = (
                f"{this.name(peer.index, peer.host)} has another {differ[0]} than process 0: {theirs}, not {mine}; "
                "all have to see one project folder, with the same software"
            )
        if problem:
            for each in (peer, *peers.values()):
                each.send(error=problem)
            raise StageError(problem)
        peers[peer.index] = peer
    with closing(socket.create_server((this.host, 0), family=family)) as free:
        port = free.getsockname()[1]
    address = f"[{this.host}]:{port}" if ":" in this.host else f"{this.host}:{port}"
    for peer in peers.values():
        peer.send(meet=address)
    return list(peers.values()), address


def _report(this: Processes, agreed: dict[str, Any], stack: ExitStack) -> tuple[list[Peer], str]:
    """Another process: find process 0, and hear where the training processes meet."""
    where = f"execution.coordinator: process 0 at {this.host}:{this.port}"
    deadline = time.monotonic() + JOIN_SECONDS
    while True:
        try:
            connection = socket.create_connection((this.host, this.port), timeout=10)
            break
        except OSError as error:
            if time.monotonic() > deadline:
                raise StageError(f"{where} cannot be reached: {error.strerror or error}") from error
            time.sleep(0.2)
    first = Peer(stack.enter_context(closing(connection)))
    first.host = this.host
    first.send(index=this.index, count=this.count, host=socket.gethostname(), agreed=agreed)
    try:
        answer = first.first(deadline)
    except TimeoutError:
        raise StageError(f"{where} waited for others in vain") from None
    except ConnectionError:
        raise StageError(f"{where} has gone, before the training began") from None
    if "error" in answer:
        raise StageError(answer["error"])
    return [first], str(answer["meet"])


class _Watch:
    """The watching process while the training process works."""

    def __init__(self, this: Processes, peers: list[Peer], where: Callable[[], str]) -> None:
        self.this, self.peers, self.where = this, peers, where
        self.host = socket.gethostname()

    def run(self, address: str, stack: ExitStack) -> None:
        said = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  # the stack closes it
        child, beats = _start(self.this, address, said)
        stack.callback(os.close, beats)
        stack.callback(child.wait)
        stack.callback(child.kill)  # whatever happens here
        selector = stack.enter_context(selectors.DefaultSelector())
        for peer in self.peers:
            peer.socket.settimeout(PING_SECONDS)
            peer.heard = time.monotonic()
            selector.register(peer.socket, selectors.EVENT_READ, peer)
        pinged = 0.0
        failed: tuple[float, str] | None = None  # when the training here has to be over, for what happened elsewhere
        ended: float | None = None  # when the training process here ended
        beat = time.monotonic()  # when it was last heard of
        patience = JOIN_SECONDS  # it has to load its libraries before it can say anything
        looked = time.monotonic()
        while True:
            asleep = time.monotonic() - looked
            looked += asleep
            if asleep > 1:  # this process or its machine was halted: no wonder that it has heard nothing
                beat += asleep
                for peer in self.peers:
                    peer.heard += asleep
            status = child.poll()
            if status == 0:
                for peer in self.peers:
                    peer.send(done=True)
                return
            now = time.monotonic()
            if status is not None and ended is None:
                ended = now
            if status == 1 or (status is not None and status == -signal.SIGKILL):
                self._failed(status, said)
            if ended is not None and now - ended > GRACE_SECONDS:
                self._failed(status, said)
            with suppress(BlockingIOError):
                if os.read(beats, 1000):
                    beat, patience = now, SILENCE_SECONDS
            if ended is None and failed is None and now - beat > patience:
                self._failed(None, said, patience)
            if failed and now > failed[0]:
                raise StageError(failed[1])
            if now - pinged > PING_SECONDS:
                for peer in self.peers:
                    peer.send(ping=True)
                pinged = now
            for key, _ in selector.select(timeout=0.1):
                peer = key.data
                try:
                    messages = peer.receive()
                except ConnectionError:
                    self._lost(peer)
                for message in messages:
                    if "lost" in message:
                        raise StageError(str(message["lost"]))
                    if "failed" in message and failed is None:
                        for other in self.peers:
                            if other is not peer:
                                other.send(**message)
                        failed = (now + GRACE_SECONDS, str(message["failed"]))
                    if "done" in message or "failed" in message:
                        selector.unregister(peer.socket)
                        peer.heard = float("inf")
            for peer in self.peers:
                if time.monotonic() - peer.heard > SILENCE_SECONDS:
                    self._lost(peer)

    def _lost(self, peer: Peer) -> NoReturn:
        line = f"{self.this.name(peer.index, peer.host)} was lost {self.where()}"
        for other in self.peers:
            if other is not peer:
                other.send(lost=line)
        raise StageError(line)

    def _failed(self, status: int | None, said: Any, silent: float = 0.0) -> NoReturn:
        """The training process here failed, by itself as far as is known, or hangs and so has no status.

        In the latter case nothing was heard of it for `silent` seconds.
        """
        here = self.this.name(self.this.index, self.host)
        if status == 1:
            how = f"{here} stopped with an error, which it has printed,"
        elif status is not None and status < 0:
            how = f"{here} was ended by {signal.Signals(-status).name}"
        elif status is None:
            how = f"{here} hung: its training process was not heard of for {silent:.0f} s,"
        else:
            how = f"{here} failed"
        line = f"{how} {self.where()}"
        for peer in self.peers:
            peer.send(failed=line)
        if status == 1:
            sys.exit(1)
        said.seek(0)
        text = said.read().decode(errors="replace")[-TAIL:]
        print(text, file=sys.stderr, flush=True)
        raise StageError(line)


def _start(this: Processes, address: str, said: Any) -> tuple[subprocess.Popen[bytes], int]:
    """The training process, which is this command again, and what its heartbeat is read from.

    It ends when this process does, at the latest when it looks at its standard input. What it prints itself goes
    where this process prints; what libraries print without Python is kept, since most of it comes when all is over.
    """
    out, err = os.dup(1), os.dup(2)
    beats, beating = os.pipe()
    os.set_blocking(beats, False)
    about = {"address": address, "count": this.count, "index": this.index, "out": out, "err": err, "beating": beating}
    try:
        child = subprocess.Popen(
            [sys.executable, *sys.orig_argv[1:]],
            env=os.environ | {TRAINS: json.dumps(about)},
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=said,
            pass_fds=(out, err, beating),
        )
        return child, beats
    finally:
        for descriptor in (out, err, beating):
            os.close(descriptor)


@contextmanager
def joined() -> Iterator[tuple[int, int]]:
    """In the training process: the index and the number of processes, once it is connected with the others.

    Leaving by an error ends the process without waiting for the others, who may not come.
    """
    about = json.loads(os.environ[TRAINS])
    native = os.dup(2)
    sys.stdout = os.fdopen(about["out"], "w", buffering=1)
    sys.stderr = os.fdopen(about["err"], "w", buffering=1)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.write(about["beating"], b".")  # before anything is said of this process, whenever the thread gets its turn
    threading.Thread(target=_beat, args=(about["beating"],), daemon=True).start()

    def unexpected(*error: Any) -> None:
        os.write(native, "".join(traceback.format_exception(*error)).encode())
        sys.stdout.flush()
        os._exit(UNEXPECTED)

    sys.excepthook = unexpected
    from melnet.training.devices import join

    try:
        try:
            join(about["address"], about["count"], about["index"], seconds=HEARTBEAT_SECONDS)
        except ValueError as error:
            raise StageError(f"execution.processes: {error}") from error
        yield about["index"], about["count"]
    except BaseException:
        atexit.register(_leave)  # before JAX's own, which would wait
        raise


def _leave() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def _end_with_parent() -> None:
    os.read(0, 1)
    os._exit(1)


def _beat(beating: int) -> None:
    """Say regularly that this process is neither stopped nor stuck where it holds Python's lock."""
    with suppress(BrokenPipeError):  # nobody listens: _end_with_parent ends this process
        while True:
            os.write(beating, b".")
            time.sleep(PING_SECONDS)
