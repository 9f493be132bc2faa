"""The command ``melnet live``: read the model, find out how many listeners there is room for, and serve the page."""

import contextlib
import ipaddress
import socket
import sys
import threading
import webbrowser
from collections.abc import Collection
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from melnet.live.access import OwnPages
from melnet.live.app import Live, speed
from melnet.singing import load

SPARE = 1.5  # times real time that is needed for each listener, so that other work lets nobody run dry


def serve(folder: Path, host: str, port: int, places: int | None, open_browser: bool) -> None:
    """Serve the page until interrupted; status lines go to standard error.

    Parameters
    ----------
    port
        0 takes a free one.
    places
        Listeners at a time; None: as many as the machine is found to be quick enough for.

    Raises
    ------
    ModelError
        See :func:`melnet.singing.load`.
    OSError
        The address cannot be listened on.
    """
    # Before the seconds that the model takes, which a browser that asks already waits for.
    with listening_socket(host, port) as listening:
        _say(f"{folder}: reading and compiling, which takes some seconds")
        model = load(folder)
        times = speed(model)
        if places is None:
            places = max(1, int(times / SPARE))
        live = Live(model, places)
        live.warm_up()
        _say(f"{folder}: sings {times:.1f} times as fast as real time; listeners at a time: {places}")
        if times < places:
            _say("warning: this is too slow to sing without pauses")
        address, port = listening.getsockname()[:2]
        if not ipaddress.ip_address(address).is_loopback:
            _say(
                f"warning: whoever reaches {address} can listen and upload recordings, without a password; and other "
                "machines' browsers play only over HTTPS, or through a tunnel to this machine's loopback"
            )
        name = f"[{host}]" if ":" in host else host
        url = f"http://{socket.gethostname() if ipaddress.ip_address(address).is_unspecified else name}:{port}/"
        _say(f"{url}  (Ctrl-C ends it)")
        if open_browser:  # browsers of a terminal return only when they are left
            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(configuration(live, own_names(host))).run(sockets=[listening])


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket that listens on an address."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OSError(f"--host {host} --port {port}: {reason}") from error


def own_names(host: str) -> Collection[str]:
    """Names of this machine that its page may be asked for by; addresses are let through anyway."""
    return {"localhost", host.lower(), socket.gethostname().lower(), socket.getfqdn().lower()}


def configuration(live: Live, names: Collection[str]) -> uvicorn.Config:
    """The configuration of uvicorn for this page."""
    app: ASGIApp = OwnPages(live.app(), names)
    return uvicorn.Config(
        app,
        log_level="warning",
        lifespan="off",
        ws="websockets-sansio",
        ws_max_size=2**16,  # wishes are short
        ws_per_message_deflate=False,  # audio of floats hardly gets smaller
        timeout_graceful_shutdown=1,
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
