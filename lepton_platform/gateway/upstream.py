"""The gateway's connections to the workers: HTTP over Unix sockets that nobody else can open."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lepton_platform.gateway.routing import Target

if TYPE_CHECKING:
    import aiohttp

KEEP_ALIVE_S = 4.0  # shorter than uvicorn's 5 s: the gateway lets go first, and no request meets a closing door
CONNECT_S = 2.0
_PASSED_ON = ("content-type", "retry-after", "x-prediction-id", "x-model", "allow")


class Unreachable(Exception):
    """No whole answer came: the worker is gone, or was too slow."""


@dataclass(frozen=True)
class Answer:
    """What a worker answered, whole."""

    status: int
    headers: dict[str, str]
    body: bytes


class Upstream:
    """Made in the event loop. The sockets are named relative to the working folder: a path of any length has room."""

    def __init__(self) -> None:
        self._sessions: dict[str, aiohttp.ClientSession] = {}

    def session(self, target: Target) -> "aiohttp.ClientSession":
        found = self._sessions.get(target.socket)
        if found is None:
            import aiohttp

            connector = aiohttp.UnixConnector(target.socket, limit=0, keepalive_timeout=KEEP_ALIVE_S)
            found = aiohttp.ClientSession(
                connector=connector, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
            )
            self._sessions[target.socket] = found
        return found

    async def send(
        self, target: Target, method: str, path: str, headers: Mapping[str, str], body: bytes, within_s: float
    ) -> Answer:
        """``Unreachable`` where no answer came within so many seconds."""
        import aiohttp

        times = aiohttp.ClientTimeout(total=within_s, sock_connect=CONNECT_S)
        try:
            async with self.session(target).request(
                method,
                f"http://worker{path}",
                data=body or None,
                headers=headers,
                timeout=times,
                allow_redirects=False,
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            ) as response:
                content = await response.read()
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise Unreachable(f"{target.tag}: {error!r}") from None
        return Answer(response.status, _passed_on(response.headers), content)

    def forget(self, kept: set[str]) -> None:
        """Let go of workers that answer no more."""
        for name in set(self._sessions) - kept:
            session = self._sessions.pop(name)
            task = asyncio.get_running_loop().create_task(session.close())
            _closing.add(task)
            task.add_done_callback(_closing.discard)

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()


_closing: set["asyncio.Task[None]"] = set()  # a task that nobody holds may be collected before it has run


def _passed_on(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name in _PASSED_ON if (value := headers.get(name)) is not None}
