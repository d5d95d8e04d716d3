"""A WebSocket through the gateway: opened to the champion first, then messages go both ways until one side ends.

A stream stays with the worker that it began with; it is not begun again elsewhere, for what was sent is not kept.

A browser lets no page set a header of a WebSocket's request but the subprotocols that it offers (RFC 6455, §11.3.4), so
a page's key may come among these: ``lepton.stream`` and ``lepton.key.`` with the key behind it. The first is accepted; the
second is never said back.
"""

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

from starlette.types import Scope
from starlette.websockets import WebSocket, WebSocketDisconnect

from lepton_platform.gateway.access import challenge
from lepton_platform.serving.rejected import Rejected, malformed, overloaded
from lepton_platform.serving.replies import refusal, rejected_for
from lepton_platform.serving.stream_route import CODES, READ_BYTES, STREAM, check_origin, refuse

if TYPE_CHECKING:
    import aiohttp

    from lepton_platform.gateway.app import Gateway

ROUTE = f"/v1/{{task}}{STREAM}"
PROTOCOL, KEY_OFFERED = "lepton.stream", "lepton.key."
_FAULT = 1011
_STATUSES = {1000: 200, **{code: status for status, code in CODES.items()}}


class StreamProxy:
    """The endpoint."""

    def __init__(self, gateway: "Gateway") -> None:
        self.gateway = gateway

    async def endpoint(self, socket: WebSocket) -> None:
        """Whatever happens, it is told to the client as far as there is one, and counted."""
        started, task = time.perf_counter(), socket.path_params["task"]
        try:
            self.gateway.check({**socket.scope, "headers": with_key(socket.scope)}, socket.headers, "predict")
            _check_origin(socket)
            with self.gateway.counted():
                status = await self._pass(socket, task)
        except WebSocketDisconnect:
            status = 499
        except Exception as error:
            refused = rejected_for(error, ROUTE)
            status = refused.status
            await _refuse(socket, refused)
        known = task if task in self.gateway.workers.table else ""
        self.gateway.metrics.request(known, ROUTE, status, time.perf_counter() - started)

    async def _pass(self, socket: WebSocket, task: str) -> int:
        """The status that its end amounts to."""
        import aiohttp

        if not self.gateway.about(task).stream:
            raise malformed(f"{task} takes no streams.")
        route = self.gateway.workers.route(task)
        target = route.champion or route.canary if route else None
        if target is None:
            raise overloaded(f"{task} is starting.")
        session = self.gateway.workers.upstream.session(target)
        try:
            worker = await session.ws_connect(f"http://worker{STREAM}", max_msg_size=READ_BYTES, compress=0)
        except aiohttp.WSServerHandshakeError as error:
            raise Rejected(error.status, f"The service of {task} refused the stream.") from None
        except (aiohttp.ClientError, OSError):
            raise overloaded(f"{task} is starting.") from None
        async with worker:
            await socket.accept(PROTOCOL if PROTOCOL in socket.scope.get("subprotocols", ()) else None)
            return await _both_ways(socket, worker)


def with_key(scope: Scope) -> list[tuple[bytes, bytes]]:
    """The headers, with a key that came among the subprotocols where a program would have put it."""
    offered = [name[len(KEY_OFFERED) :] for name in scope.get("subprotocols", ()) if name.startswith(KEY_OFFERED)]
    return [*scope["headers"], *((b"x-api-key", key.encode("latin-1", "replace")) for key in offered)]


def _check_origin(socket: WebSocket) -> None:
    try:
        check_origin(socket)
    except ValueError:  # no address at all
        raise Rejected(403, "The header Origin is no page's.", "origin") from None


async def _refuse(socket: WebSocket, refused: Rejected) -> None:
    """As a service does, with the header that goes with a 401."""
    if refused.status != 401:
        await refuse(socket, refused)
        return
    response = refusal(refused)
    response.headers.update(challenge(refused))
    with contextlib.suppress(RuntimeError, WebSocketDisconnect):  # nobody is there any more
        await socket.send_denial_response(response)


async def _both_ways(socket: WebSocket, worker: "aiohttp.ClientWebSocketResponse") -> int:
    """Until the worker closes; what the client sends after that is nobody's."""
    sending = asyncio.ensure_future(_to_worker(socket, worker))
    try:
        return await _to_client(worker, socket)
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def _to_worker(socket: WebSocket, worker: "aiohttp.ClientWebSocketResponse") -> None:
    try:
        while True:
            message: Any = await socket.receive()
            if message["type"] == "websocket.disconnect":
                await worker.close(code=message.get("code") or 1000)
                return
            if message.get("bytes") is not None:
                await worker.send_bytes(message["bytes"])
            else:
                await worker.send_str(message["text"])
    except ConnectionError:  # the worker is gone; the other direction says so
        return


async def _to_client(worker: "aiohttp.ClientWebSocketResponse", socket: WebSocket) -> int:
    """Until the worker says no more; the client is told its closing words, and the metrics what they amount to."""
    from aiohttp import WSMsgType

    while True:
        message = await worker.receive()
        if message.type is WSMsgType.TEXT:
            await socket.send_text(message.data)
        elif message.type is WSMsgType.BINARY:
            await socket.send_bytes(message.data)
        else:
            break
    code = worker.close_code
    if code is None or code == 1006:  # without a closing frame: the worker has died
        await socket.close(_FAULT, "The service ended; begin again.")
        return 503
    await socket.close(code, message.extra if message.type is WSMsgType.CLOSE else None)
    return _STATUSES.get(code, 500)
