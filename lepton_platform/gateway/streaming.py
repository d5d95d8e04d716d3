"""A WebSocket through the gateway: opened to the champion first, then messages go both ways until one side ends.

A stream stays with the worker that it began with; it is not begun again elsewhere, for what was sent is not kept.
"""

import asyncio
import time
from typing import TYPE_CHECKING, Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from lepton_platform.gateway.access import own_page
from lepton_platform.serving.rejected import Rejected, malformed, overloaded
from lepton_platform.serving.replies import rejected_for
from lepton_platform.serving.stream_route import READ_BYTES, STREAM, check_origin, refuse

if TYPE_CHECKING:
    import aiohttp

    from lepton_platform.gateway.app import Gateway

ROUTE = f"/v1/{{task}}{STREAM}"
_FAULT = 1011


class StreamProxy:
    """The endpoint."""

    def __init__(self, gateway: "Gateway") -> None:
        self.gateway = gateway

    async def endpoint(self, socket: WebSocket) -> None:
        """Whatever happens, it is told to the client as far as there is one, and counted."""
        started, status, task = time.perf_counter(), 200, socket.path_params["task"]
        try:
            client = socket.scope.get("client")
            if not self.gateway.access.authentication:
                own_page(socket.headers)
            self.gateway.access.check(socket.headers.raw, "predict", client[0] if client else None)
            check_origin(socket)
            with self.gateway.counted():
                await self._pass(socket, task)
        except WebSocketDisconnect:
            status = 499
        except Exception as error:
            refused = rejected_for(error, ROUTE)
            status = refused.status
            await refuse(socket, refused)
        known = task if task in self.gateway.workers.table else ""
        self.gateway.metrics.request(known, ROUTE, status, time.perf_counter() - started)

    async def _pass(self, socket: WebSocket, task: str) -> None:
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
            await socket.accept()
            await _both_ways(socket, worker)


async def _both_ways(socket: WebSocket, worker: "aiohttp.ClientWebSocketResponse") -> None:
    """Until the worker closes; what the client sends after that is nobody's."""
    sending = asyncio.ensure_future(_to_worker(socket, worker))
    try:
        await _to_client(worker, socket)
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


async def _to_client(worker: "aiohttp.ClientWebSocketResponse", socket: WebSocket) -> None:
    from aiohttp import WSMsgType

    async for message in worker:
        if message.type is WSMsgType.TEXT:
            await socket.send_text(message.data)
        elif message.type is WSMsgType.BINARY:
            await socket.send_bytes(message.data)
    code = worker.close_code
    if code is None or code == 1006:  # without a closing frame: the worker has died
        await socket.close(_FAULT, "The service ended; begin again.")
    else:
        await socket.close(code)
