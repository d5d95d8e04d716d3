"""A webhook's receiver on loopback: a real server that notes what is posted to it."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Hook:
    """``status``: its answer; what it answers otherwise than 200 it has not heard. ``slow_s``: before it does.

    ``texts``: what it was told; ``words``: the first line of each.
    """

    url: str = ""
    texts: list[str] = field(default_factory=list)
    status: int = 200
    slow_s: float = 0.0

    @property
    def words(self) -> list[str]:
        return [text.splitlines()[0] for text in self.texts]


@contextmanager
def hooked() -> Iterator[Hook]:
    hook = Hook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert self.headers["Content-Type"] == "application/json" and list(told) == ["text"]
            time.sleep(hook.slow_s)
            if hook.status == 200:
                hook.texts.append(told["text"])
            self.send_response(hook.status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    hook.url = f"http://127.0.0.1:{server.server_port}/services/T0/B0/x"
    try:
        yield hook
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
