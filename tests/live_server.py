"""The live page served as `melnet live` does, in a thread of the test."""

import threading
from contextlib import contextmanager

import uvicorn

from melnet.live.server import configuration, listening_socket, own_names


@contextmanager
def serving(live):
    """Serve on a free port of loopback; gives the address, without scheme."""
    with listening_socket("127.0.0.1", 0) as listening:
        server = uvicorn.Server(configuration(live, own_names("127.0.0.1")))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            yield f"127.0.0.1:{listening.getsockname()[1]}"
        finally:  # otherwise a test that fails would wait for the thread for ever
            server.should_exit = True
            thread.join()


class Watched:
    """A model's stream that counts the chunks drawn from it."""

    def __init__(self, stream):
        self.stream, self.settings, self.drawn = stream, stream.settings, 0

    @property
    def log_mel(self):
        return self.stream.log_mel

    def __next__(self):
        self.drawn += 1
        return next(self.stream)


def watch(live):
    """Count the chunks that are drawn for each listener; the list grows with them."""
    streams, original = [], live._stream

    def watched(start):
        streams.append(Watched(original(start)))
        return streams[-1]

    live._stream = watched
    return streams
