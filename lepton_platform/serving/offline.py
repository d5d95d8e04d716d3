"""Answer rows of a data set with a Bento's own code, without a server: champion and challenger on the same rows.

``python -m lepton_platform.serving.offline BENTO``, run in the Bento's ``src`` folder, reads rows as JSON lines and
writes a line a row: ``{"label": …, "score": …, "scores": …}``, or ``{"error": …}`` where the service would refuse it.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lepton_platform.serving.bundle import Bundle
from lepton_platform.serving.engine import Engine
from lepton_platform.serving.protocols import Json
from lepton_platform.serving.rejected import Rejected


def answer_inputs(bundle: Bundle, inputs: Sequence[Any]) -> list[tuple[Json, Json]]:
    """(answer, what is logged beside it) of each input, each run alone: no answer depends on its neighbours."""
    engine = Engine(bundle.model, bundle.api, bundle.preprocess)
    items = engine.encoder.prepare(inputs)
    return [bundle.api.answer(engine.labels, engine.run([item])[0]) for item in items]


def answer_rows(bundle: Bundle, rows: Iterable[Json]) -> Iterable[Json]:
    engine = Engine(bundle.model, bundle.api, bundle.preprocess)
    for row in rows:
        try:
            [item] = engine.encoder.prepare([bundle.api.from_row(row)])
        except Rejected as refused:
            yield {"error": refused.message}
            continue
        answer, beside = bundle.api.answer(engine.labels, engine.run([item])[0])
        yield {**answer, **beside}


def main(bento: str) -> None:
    bundle = Bundle.load(Path(bento).resolve())
    for answer in answer_rows(bundle, map(json.loads, sys.stdin)):
        sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
