"""The Bento's service: our app, mounted in BentoML. `bentoml serve <folder or tag>` runs this module from a Bento.

BentoML's own routes and middlewares (tracing, access log, time limit) cost more than a third of what a short
request takes, and its `/schema.json` hides ours; a middleware hands every request to the app before them.
"""

from pathlib import Path
from typing import Any

import bentoml

from lepton_platform.serving.app import create_app
from lepton_platform.serving.bundle import Bundle
from lepton_platform.settings import get_settings

BENTO = Path(__file__).resolve().parents[3]  # <bento>/src/lepton_platform/serving/service.py
bundle = Bundle.load(BENTO)
app = create_app(bundle, get_settings().predictions_dir)


class Direct:
    """ASGI middleware: requests go to the app, the rest (start, stop) to BentoML."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await (app if scope["type"] in ("http", "websocket") else self.inner)(scope, receive, send)


@bentoml.service(
    name=bundle.task,
    workers=1,
    http={"host": "127.0.0.1"},  # pyright: ignore[reportArgumentType] - it is checked as a word
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    traffic={"timeout": 60},
)
@bentoml.asgi_app(app, path="/")
class Answers:
    """One model behind one queue; everything about it is in the manifest."""


Answers.add_asgi_middleware(Direct)  # pyright: ignore[reportArgumentType] - any ASGI class will do
