"""A service process: ``python -m lepton_platform.serving.server --bento DIR`` runs one Bento with uvicorn alone.

Run in the Bento's ``src`` folder it is the Bento's own code that answers. BentoML is not imported: beside the same
app under `bentoml serve` that is one process instead of two, and a start in a third of the time.
"""

import argparse
import contextlib
import ctypes
import functools
import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import uvicorn

    from lepton_platform.serving.link import Answered

DRAIN_S = 10
_PR_SET_PDEATHSIG = 1
_M_MMAP_THRESHOLD, _LARGE_BYTES = -3, 4 << 20
_M_TRIM_THRESHOLD, _KEPT_BYTES = -1, 64 << 20


def die_with_parent(parent: int) -> None:
    """Linux: end when the process that started this one ends, however it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        raise SystemExit("The supervisor is gone.")


def give_back_large_blocks() -> None:
    """Linux: memory of a large picture goes back to the system with it.

    glibc takes a block that was freed for a sign to keep the next ones of its size; a threshold that is set stays.
    With it goes the one for what is free at the heap's end, which would be given back after nearly every request.
    """
    with contextlib.suppress(AttributeError, OSError):  # another C library has no such call
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        ctypes.CDLL(None).mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def server(
    app: Any, ready: int | None, streaming: bool = False, answered: "Answered | None" = None
) -> "uvicorn.Server":
    """``ready``: a descriptor that receives one byte when requests are answered. ``streaming``: WebSockets too.

    ``answered``: what answers predictions over the gateway's link, where there may be one.
    """
    import uvicorn

    from lepton_platform.serving.connection import Bounded
    from lepton_platform.serving.link import Linkable
    from lepton_platform.serving.stream_route import READ_BYTES

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if ready is not None and self.started:
                os.write(ready, b"1")
                os.close(ready)

    options: dict[str, Any] = {"log_config": None, "access_log": False, "server_header": False, "lifespan": "on"}
    options |= {"http": functools.partial(Linkable, answered) if answered else Bounded, "ws": "none"}
    if streaming:  # a message that is compressed may become any size
        options |= {"ws": "websockets-sansio", "ws_per_message_deflate": False, "ws_max_size": READ_BYTES}
    return Server(uvicorn.Config(app, timeout_graceful_shutdown=DRAIN_S, backlog=1024, **options))


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="lepton_platform.serving.server", description="Serve one Bento.")
    parser.add_argument("--bento", type=Path, required=True, help="the Bento's folder")
    parser.add_argument("--predictions", type=Path, required=True, help="the folder of the prediction log")
    parser.add_argument("--deployment", help="the deployment's id, noted in every row of the log")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--fd", type=int, help="a listening socket, instead of host and port")
    parser.add_argument("--ready-fd", type=int, help="receives one byte when requests are answered")
    parser.add_argument("--parent", type=int, help="end with this process")
    return parser.parse_args(words)


def main() -> None:
    import logging

    chosen = arguments()
    if chosen.parent:
        die_with_parent(chosen.parent)
    give_back_large_blocks()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # what is malformed, the answer tells
    from lepton_platform.serving.app import create_app
    from lepton_platform.serving.bundle import Bundle
    from lepton_platform.serving.stream_route import streams

    bundle = Bundle.load(chosen.bento.resolve())
    app = create_app(bundle, chosen.predictions, chosen.deployment)
    if chosen.fd is not None:
        listening = socket.socket(fileno=chosen.fd)
    else:
        listening = socket.create_server((chosen.host, chosen.port), backlog=1024)
    private = listening.family == socket.AF_UNIX  # the gateway's, and nobody else's
    answered = app.predict.answered if private else None
    server(app, chosen.ready_fd, streams(bundle.api), answered).run(sockets=[listening])


if __name__ == "__main__":
    main()
