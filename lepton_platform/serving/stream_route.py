"""``/stream``: an input that comes bit by bit over a WebSocket; what has been understood of it so far comes back meanwhile.

The client sends messages of bytes, before them perhaps one of text that says how they are to be read (JSON; the task's
``Stream`` knows what), and at last ``{"end": true}``. The service sends ``{"partial": "…"}`` when what it has understood has
changed and, after the end, an answer as ``/predict`` gives it; then it closes with 1000. That answer is durable as any other.

One pass of the model a stream is in flight. What comes meanwhile waits for no pass of its own: the next takes it all. A
pass that an overloaded service refuses is left out; only the last one must be answered.
"""

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from lepton_platform.serving.answering import Running
from lepton_platform.serving.jsonbody import kind, parse
from lepton_platform.serving.protocols import Json, Parts, Stream, TaskApi
from lepton_platform.serving.rejected import Rejected, too_large
from lepton_platform.serving.replies import as_json, refusal, rejected_for

if TYPE_CHECKING:
    from lepton_platform.serving.app import Service

STREAM = "/stream"
MAX_MESSAGE_BYTES = 1 << 20
READ_BYTES = 2 * MAX_MESSAGE_BYTES  # of a message at most: one that is a little too large can be told so in peace
IDLE_S = 30.0  # between two messages
LONGEST_S = 180.0  # from first to last: who sends a little now and then holds a place, too
CODES = {408: 1008, 413: 1009, 415: 1003, 422: 1007, 503: 1013}  # of RFC 6455, §7.4, by the status of a refusal
_FAULT = 1011
_STATUSES = {code: status for status, code in CODES.items()}
_GONE = 499  # the client, before it had its answer
_REASON_BYTES = 123  # the most that a closing frame holds


def streams(api: TaskApi) -> bool:
    """May a task's inputs come bit by bit?"""
    return hasattr(api, "stream")


class StreamRoute:
    """The endpoint, and what its streams share."""

    def __init__(self, service: "Service") -> None:
        self.service = service
        self.make: Callable[[Any], Stream] = service.bundle.api.stream  # pyright: ignore[reportAttributeAccessIssue]

    async def endpoint(self, socket: WebSocket) -> None:
        """Whatever happens, it is told to the client as far as there is one, and counted."""
        started, status = time.perf_counter(), 200
        try:
            async with asyncio.timeout(LONGEST_S):
                await self._answer(socket)
        except WebSocketDisconnect as gone:
            status = _STATUSES.get(gone.code, _GONE)  # the protocol itself refuses what is no message, or too large
        except Exception as error:
            late = Rejected(408, f"A stream lasts at most {LONGEST_S:g} s.")
            refused = late if isinstance(error, TimeoutError) else rejected_for(error, STREAM)
            status = refused.status
            await refuse(socket, refused)
        self.service.metrics.request(STREAM, status, time.perf_counter() - started)

    async def _answer(self, socket: WebSocket) -> None:
        check_origin(socket)
        running = self.service.running
        with self.service.counted() as hold:
            await socket.accept()
            one = _Conversation(self.service, running, socket, self.make(running.engine.encoder))
            try:
                await one.listen(hold)
                answer = await one.answer()
            finally:
                await one.close()
            await socket.send_text(as_json(answer))
        await socket.close()


class _Conversation:
    """One stream, from its first message to its answer."""

    def __init__(self, service: "Service", running: Running, socket: WebSocket, stream: Stream) -> None:
        self.service, self.running, self.socket, self.stream = service, running, socket, stream
        self.passing: asyncio.Task[None] | None = None
        self.said = ""

    async def listen(self, hold: Callable[[int], None]) -> None:
        """Take messages until one says that it was the last."""
        first = True
        while True:
            message = await self._message()
            data, text = message.get("bytes"), message.get("text")
            if len(data or text or "") > MAX_MESSAGE_BYTES:
                raise too_large(f"A message has at most {MAX_MESSAGE_BYTES:,} bytes.")
            if data is not None:
                hold(len(data))
                await self._work(self.stream.take, data)
                await self._pass()
            elif _is_end(told := _told(text or "")):
                return
            elif first:
                await self._work(self.stream.told, told)
            else:
                raise Rejected(415, 'Behind the first message text is {"end": true} and nothing else.')
            first = False

    async def _message(self) -> Json:
        try:
            async with asyncio.timeout(IDLE_S):
                message = await self.socket.receive()
        except TimeoutError:
            raise Rejected(408, f"No message came within {IDLE_S:g} s.") from None
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1006), message.get("reason"))
        return dict(message)

    async def _pass(self) -> None:
        """Ask the model if it is not being asked, and something is due."""
        if self.passing is not None:
            if not self.passing.done():
                return
            self.passing.result()  # a fault ends the stream
        parts = await self._work(self.stream.due)
        self.passing = asyncio.create_task(self._partial(parts)) if parts else None

    async def _partial(self, parts: Parts) -> None:
        try:
            outputs = await self.service.answering.outputs(self.running, parts)
        except Rejected:  # overload: a pass more or less is nobody's loss
            return
        text = await self._work(self.stream.heard, outputs)
        if text != self.said:
            self.said = text
            await self.socket.send_text(as_json({"partial": text}))

    async def answer(self) -> Json:
        """As ``/predict`` answers."""
        started = time.perf_counter()
        if self.passing is not None:
            await self.passing
        await self._work(self.stream.end)
        if parts := await self._work(self.stream.due):
            await self._work(self.stream.heard, await self.service.answering.outputs(self.running, parts))
        value, parts, outputs = await self._work(self.stream.whole)
        answers, _ = await self.service.answering.answer(self.running, [value], [parts], started, outputs)
        return {"predictions": answers, "model": self.service.bundle.tag}

    async def _work(self, function: Callable[..., Any], *given: Any) -> Any:
        """In the thread that encodes: the stream's methods come one after the other."""
        return await asyncio.get_running_loop().run_in_executor(self.running.threads, function, *given)

    async def close(self) -> None:
        if self.passing is not None and not self.passing.done():
            self.passing.cancel()
            await asyncio.gather(self.passing, return_exceptions=True)


def _told(text: str) -> Json:
    try:
        told = parse(text.encode("utf-8", "surrogatepass"))
    except Rejected as error:
        raise Rejected(error.status, error.message.replace("The body", "The message")) from None
    if not isinstance(told, dict):
        raise Rejected(422, f"A message of text is a JSON object, not {kind(told)}.")
    return told


def _is_end(told: Json) -> bool:
    if "end" in told and told != {"end": True}:
        raise Rejected(422, 'The last message is {"end": true} and nothing else.')
    return "end" in told


def check_origin(socket: WebSocket) -> None:
    """A page of another site may not: browsers let it open WebSockets where it could send no request."""
    origin = socket.headers.get("origin")
    try:
        own = origin is None or urlsplit(origin).netloc == socket.headers.get("host")
    except ValueError:  # no address at all
        own = False
    if not own:
        raise Rejected(403, "Pages of another origin are not answered.", "origin")


async def refuse(socket: WebSocket, refused: Rejected) -> None:
    """Before a WebSocket is one, by an answer to its request; then by closing it."""
    try:
        if socket.application_state is WebSocketState.CONNECTING:
            await socket.send_denial_response(refusal(refused))
        else:
            await socket.close(CODES.get(refused.status, _FAULT), _reason(refused.message))
    except (RuntimeError, WebSocketDisconnect):  # nobody is there any more
        return


def _reason(message: str) -> str:
    return message.encode("utf-8", "replace")[:_REASON_BYTES].decode("utf-8", "ignore")
