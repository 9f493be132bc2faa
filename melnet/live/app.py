"""The server of the live page: listeners, the primes and scores they upload, and a stream for each of them."""

import asyncio
import contextlib
import os
import secrets
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket, WebSocketDisconnect

from melnet.audio.integrity import UnusableAudio
from melnet.errors import MelnetError
from melnet.live.messages import ScoreQuery, Start, Wish, chunk_bytes, problem
from melnet.live.uploads import MOST_BYTES, MOST_SECONDS, most_frames, read_upload, read_uploaded_score, without_path
from melnet.prime import Prime
from melnet.score import NOTE_READERS, Score
from melnet.singing import Model
from melnet.streaming import Stream

CHUNK_SECONDS = 0.25
MEASURED_CHUNKS = 12
MOST_AHEAD_SECONDS = 20.0  # of the clock, whatever a listener says to have heard
LEAVING_SECONDS = 1.0  # that a place may take to become free: a page begins another song while it leaves the last one
SILENT_SECONDS = 30.0  # without a message, after which a listener's place is free again
KEPT_UPLOADS = 64

T = TypeVar("T")
R = TypeVar("R")


class Live:
    """A model that sings to listeners, each with a stream of its own.

    A few threads draw the chunks of all listeners, first come, first served. A listener asks for a chunk when the last
    one was sent, and only while less is waiting than the page wants; so listeners take turns, and a machine whose
    listeners have enough is idle.

    Parameters
    ----------
    places
        Listeners at a time; further ones are told that there is no room.
    """

    def __init__(self, model: Model, places: int) -> None:
        self.model, self.places = model, places
        self.listening = 0
        """listeners now"""
        self._free = asyncio.Semaphore(places)
        self._threads = ThreadPoolExecutor(len(os.sched_getaffinity(0)), "singing")
        self._uploads: dict[str, Prime | Score] = {}
        self._compiled: set[tuple[type, int]] = set()  # lengths of primes and of scores, in frames
        self._reading = asyncio.Lock()

    def app(self) -> Starlette:
        """The routes, without the checks of :class:`melnet.live.access.OwnPages`."""
        page = StaticFiles(directory=Path(__file__).parent / "static", html=True)
        return Starlette(
            routes=[
                Route("/model", self.describe),
                Route("/prime", self.take_prime, methods=["POST"]),
                Route("/score", self.take_score, methods=["POST"]),
                WebSocketRoute("/listen", self.listen),
                Mount("/", page),
            ]
        )

    def warm_up(self) -> None:
        """Compile what a prime of the usual length needs; the rest is compiled when the model is loaded."""
        config = self.model.config
        self._compile_for(Prime(np.zeros(0), np.zeros((most_frames(config), config.mel.n_mels), np.float32)))

    async def describe(self, _: Request) -> JSONResponse:
        """Tell the page the model's settings and the limits of an upload."""
        config = self.model.config
        mel, told = config.mel, config.frame_conditioning
        return JSONResponse(
            {
                "sampleRate": mel.sample_rate,
                "hopLength": mel.hop_length,
                "bandsHz": mel.edges_hz[1:-1].round(1).tolist(),
                "range": [float(mel.log_floor), float(config.normalisation.high.max())],
                "components": config.num_components,
                "singers": self.model.singers,
                "inversion": self.model.inversion(),
                "primeSeconds": [frames * mel.seconds_per_frame for frames in (config.frames, most_frames(config))],
                "takesScore": told is not None and "melody" in told.conditions,
                "upload": {"bytes": MOST_BYTES, "seconds": MOST_SECONDS},
            }
        )

    async def take_prime(self, request: Request) -> Response:
        """Check an uploaded recording, the body of the request, and give it a name for :class:`Start`."""
        return await self._take(request, "prime", "", lambda path: (read_upload(path, self.model.config), None))

    async def take_score(self, request: Request) -> Response:
        """As :meth:`take_prime`, for a score; the query is a :class:`ScoreQuery`."""
        try:
            query = ScoreQuery.model_validate(dict(request.query_params))
        except ValidationError as error:
            return JSONResponse({"error": problem(error)}, 422)
        suffix = Path(query.name).suffix.lower()
        read = partial(read_uploaded_score, model=self.model, transpose=query.transpose)
        return await self._take(request, "score", suffix if suffix in NOTE_READERS else "", read)

    async def _take(
        self,
        request: Request,
        kind: Literal["prime", "score"],
        suffix: str,
        read: Callable[[Path], tuple[Prime | Score, str | None]],
    ) -> Response:
        """Read an upload by ``read``, which gives a notice for the listener too, and keep it under a name."""
        try:
            with tempfile.TemporaryDirectory(prefix="melnet-live-") as folder:
                path = Path(folder, f"upload{suffix}")
                await _receive(request, path)
                async with self._reading:  # one at a time: decoding takes a core
                    upload, notice = await run_in_threadpool(read, path)
        except MelnetError as error:
            return JSONResponse({"error": without_path(str(error), path)}, 422)
        except ClientDisconnect:
            return Response(status_code=400)
        await self._draw(self._compile_for, upload)
        name = secrets.token_urlsafe()
        while len(self._uploads) >= KEPT_UPLOADS:
            del self._uploads[next(iter(self._uploads))]  # the oldest
        self._uploads[name] = upload
        seconds = _frames(upload) * self.model.config.mel.seconds_per_frame
        return JSONResponse({kind: name, "seconds": seconds, "notice": notice})

    async def listen(self, websocket: WebSocket) -> None:
        """Sing to a listener until the connection ends."""
        await websocket.accept()
        try:
            async with asyncio.timeout(LEAVING_SECONDS):
                await self._free.acquire()
        except TimeoutError:
            await _refuse(
                websocket,
                f"All {self.places} places are taken: this machine sings to so many at a time. "
                "Try again when somebody has stopped."
                if self.places > 1
                else "Somebody else is listening, and this machine sings to one at a time. Try again later.",
                1013,
            )
            return
        self.listening += 1
        try:
            async with asyncio.timeout(SILENT_SECONDS):
                start = Start.model_validate_json(await websocket.receive_text())
            await self._sing(websocket, start, self._stream(start))
        except* WebSocketDisconnect:
            pass
        except* TimeoutError:
            await _refuse(websocket, "The page has not been heard of for a while.", 1008)
        except* ValueError as group:
            await _refuse(websocket, problem(group.exceptions[0]), 1008)
        finally:
            self.listening -= 1
            self._free.release()

    async def _sing(self, websocket: WebSocket, start: Start, stream: Stream) -> None:
        wish: Wish = start
        wished = asyncio.Event()

        async def receive() -> None:
            nonlocal wish
            while True:
                async with asyncio.timeout(SILENT_SECONDS):
                    wish = Wish.model_validate_json(await websocket.receive_text())
                stream.settings.temperature, stream.settings.top_components = wish.temperature, wish.top_components
                wished.set()

        async def send() -> None:
            begun, sent, rate = time.monotonic(), 0, self.model.sample_rate
            while True:
                clock = (time.monotonic() - begun + MOST_AHEAD_SECONDS) * rate
                if sent < min(wish.until, clock):
                    chunk = await self._draw(next, stream)
                    await websocket.send_bytes(chunk_bytes(chunk, stream.log_mel))
                    sent += len(chunk)
                else:
                    wished.clear()
                    await wished.wait()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(receive())
            tasks.create_task(send())

    def _stream(self, start: Start) -> Stream:
        return self.model.stream(
            temperature=start.temperature,
            top_components=start.top_components,
            seed=start.seed,
            singer=start.singer,
            prime=self._uploaded(start.prime, Prime, "The recording to continue"),
            score=self._uploaded(start.score, Score, "The score"),
            chunk_seconds=CHUNK_SECONDS,
        )

    def _uploaded(self, name: str | None, kind: type[T], what: str) -> T | None:
        if name is None:
            return None
        if not isinstance(upload := self._uploads.get(name), kind):
            raise ValueError(f"{what} is not here any more; upload it again.")
        return upload

    async def _draw(self, function: Callable[[T], R], argument: T) -> R:
        """Call a function when it is its turn, in a thread of those that draw."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, argument)

    def _compile_for(self, upload: Prime | Score) -> None:
        if (length := (type(upload), _frames(upload))) not in self._compiled:
            prime, score = (upload, None) if isinstance(upload, Prime) else (None, upload)
            next(self.model.stream(prime=prime, score=score, chunk_seconds=CHUNK_SECONDS))
            self._compiled.add(length)


def speed(model: Model) -> float:
    """How many listeners a busy machine can sing to: seconds of audio in a second of the clock, on all its cores."""
    count = len(os.sched_getaffinity(0))
    streams = [model.stream(seed=seed, chunk_seconds=CHUNK_SECONDS) for seed in range(count)]
    with ThreadPoolExecutor(count) as threads:
        list(threads.map(next, streams))  # the first chunk is that of many frames
        started = time.monotonic()
        list(threads.map(lambda stream: [next(stream) for _ in range(MEASURED_CHUNKS)], streams))
        return count * MEASURED_CHUNKS * CHUNK_SECONDS / (time.monotonic() - started)


def _frames(upload: Prime | Score) -> int:
    return len(upload.log_mel) if isinstance(upload, Prime) else upload.frames


async def _receive(request: Request, path: Path) -> None:
    """Write the body of a request to a file."""
    size = 0
    with path.open("wb") as file:
        async for part in request.stream():
            size += len(part)
            if size > MOST_BYTES:
                raise UnusableAudio(f"larger than {MOST_BYTES // 2**20} MB; upload its end")
            file.write(part)


async def _refuse(websocket: WebSocket, reason: str, code: int) -> None:
    """Say why, for the page to show, and end the connection."""
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # who has gone needs no reason
        await websocket.send_json({"error": reason})
        await websocket.close(code)
