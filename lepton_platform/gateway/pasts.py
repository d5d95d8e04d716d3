"""A prediction's past, told beside the predictions: a few at a time, for each reads files for a while."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from lepton_platform.pipeline.trace import UnknownPrediction
from lepton_platform.serving.jsonbody import shown
from lepton_platform.serving.rejected import Rejected, malformed, overloaded
from lepton_platform.stage import StageFailed

THREADS, MOST_WAITING = 2, 32  # looked for at a time, and asked for at a time
SHOWN_ROWS = 100  # of the training rows, unless all are asked for
Lineage = Callable[[str, str | None], dict[str, Any]]  # a prediction's id, perhaps its task → its past
logger = logging.getLogger("lepton.gateway")


class Pasts:
    """``lineage`` runs in a thread of this."""

    def __init__(self, lineage: Lineage) -> None:
        self.lineage, self.waiting = lineage, 0
        self._threads = ThreadPoolExecutor(THREADS, "lineage")

    async def tell(self, identifier: str, task: str | None, rows: str) -> dict[str, Any]:
        """``Rejected``: 404 for an id that is not known, 422 for ``rows`` that are neither some nor all, 503 where too
        many ask already."""
        if rows not in ("some", "all"):
            raise malformed(f'"rows" is some or all, not {shown(rows, 80)}.', "rows")
        found = await self._found(identifier, task)
        if rows == "some":
            found["training_rows"]["ids"] = found["training_rows"]["ids"][:SHOWN_ROWS]
        return found

    async def _found(self, identifier: str, task: str | None) -> dict[str, Any]:
        if self.waiting >= MOST_WAITING:
            raise overloaded(f"{MOST_WAITING} lineages are being looked for already.")
        self.waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self.lineage, identifier, task)
        except UnknownPrediction:
            whose = "There is no" if task is None else f"{task} has given no"
            raise Rejected(404, f"{whose} prediction with the id {shown(identifier, 80)}.", "id") from None
        except StageFailed as failure:  # it names folders, which are not for everybody with a key
            logger.warning("The past of %s cannot be told: %s", identifier, failure)
            raise Rejected(500, f"What made {shown(identifier, 80)} is gone; the services' log says what.") from None
        finally:
            self.waiting -= 1

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
