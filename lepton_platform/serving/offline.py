"""Answer rows of a data set with a Bento's own code, without a server: champion and challenger on the same rows.

``python -m lepton_platform.serving.offline BENTO``, run in the Bento's ``src`` folder, reads rows as JSON lines and
writes a line a row: what is answered and what is logged beside it, or ``{"error": …}`` where the service would refuse it.
"""

import base64
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lepton_platform.serving.bundle import Bundle
from lepton_platform.serving.engine import Engine
from lepton_platform.serving.media_store import INLINE
from lepton_platform.serving.protocols import Json, Parts
from lepton_platform.serving.rejected import Rejected


def answer_inputs(bundle: Bundle, inputs: Sequence[Any]) -> list[tuple[Json, Json]]:
    """(answer, what is logged beside it) of each input, each run alone: no answer depends on its neighbours."""
    engine = Engine(bundle.model, bundle.api, bundle.preprocess)
    return [_answer(bundle, engine, parts) for parts in engine.encoder.prepare(inputs)]


def _answer(bundle: Bundle, engine: Engine, parts: Parts) -> tuple[Json, Json]:
    return bundle.api.answer(engine.labels, parts, [engine.run([part])[0] for part in parts])


def answer_rows(bundle: Bundle, rows: Iterable[Json]) -> Iterable[Json]:
    engine = Engine(bundle.model, bundle.api, bundle.preprocess)
    for row in rows:
        try:
            [parts] = engine.encoder.prepare([bundle.api.from_row(row)])
        except Rejected as refused:
            yield {"error": refused.message}
            continue
        answer, beside = _answer(bundle, engine, parts)
        yield {**answer, **beside}


def write_line(row: Mapping[str, Any]) -> str:
    """A row of a data set as a line; what JSON has no word for is text, bytes are ``{"$base64": …}``."""

    def plain(value: Any) -> Any:
        return {INLINE: base64.b64encode(value).decode("ascii")} if isinstance(value, bytes) else str(value)

    return json.dumps(row, default=plain) + "\n"


def read_line(line: str) -> Json:
    def media(value: Json) -> Any:
        return base64.b64decode(value[INLINE]) if value.keys() == {INLINE} else value

    return json.loads(line, object_hook=media)


def main(bento: str) -> None:
    bundle = Bundle.load(Path(bento).resolve())
    for answer in answer_rows(bundle, map(read_line, sys.stdin)):
        sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
