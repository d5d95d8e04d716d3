"""The pages, to try the models and to look after them: their few files, read once, and the headers that they are sent with.

What there is stands in a fixed table: any other name is 404, whatever path it may look like. A page loads nothing from
elsewhere, runs no script but its own files and turns no text into markup; the headers hold the browser to that.
"""

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lepton_platform.serving.jsonbody import shown
from lepton_platform.serving.rejected import Rejected
from lepton_platform.serving.replies import refusal

FOLDER = Path(__file__).with_name("page")
PAGES = {"/": "index.html", "/overview": "overview.html"}
FILES = (
    "answer.js",
    "api.js",
    "box_list.js",
    "dom.js",
    "draw.js",
    "feedback.js",
    "icon.svg",
    "inputs.js",
    "lineage.js",
    "live.js",
    "live_samples.js",
    "overview.css",
    "overview.js",
    "overview_task.js",
    "page.css",
    "page.js",
    "record.js",
    "session.js",
    "task.js",
    "words.js",
)
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_POLICY = (
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' blob:",  # blob: what was chosen or recorded in the page itself
    "media-src blob:",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
    "trusted-types 'none'",
)
HEADERS = {
    "Content-Security-Policy": "; ".join(_POLICY),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=(), display-capture=(), payment=(), usb=()",
    "Cache-Control": "no-cache",  # kept, but asked for again each time: the page and the gateway are of one version
}


@dataclass(frozen=True)
class Asset:
    """A file of the page as it is sent."""

    content: bytes
    media_type: str
    etag: str

    @classmethod
    def read(cls, path: Path) -> "Asset":
        content = path.read_bytes()
        return cls(content, _TYPES[path.suffix], f'"{hashlib.sha256(content).hexdigest()[:32]}"')

    def answer(self, request: Request) -> Response:
        """The file; 304 where the browser has this very one."""
        headers = {**HEADERS, "ETag": self.etag}
        known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
        if self.etag in known:
            return Response(status_code=304, headers=headers)
        return Response(self.content, 200, headers, self.media_type)


def page_routes() -> list[Route]:
    """The ``PAGES``, and ``/page/{file}`` for what they load; no key is needed for either. The files are read here, once."""
    assets = {name: Asset.read(FOLDER / name) for name in (*PAGES.values(), *FILES)}

    def page(name: str) -> Callable[[Request], Awaitable[Response]]:
        async def shown_page(request: Request) -> Response:
            return assets[name].answer(request)

        return shown_page

    async def file(request: Request) -> Response:
        name = request.path_params["file"]
        if name not in FILES:
            response = refusal(Rejected(404, f"The page has no file {shown(name, 80)}."))
            response.headers.update(HEADERS)
            return response
        return assets[name].answer(request)

    return [*(Route(path, page(name)) for path, name in PAGES.items()), Route("/page/{file:path}", file)]
