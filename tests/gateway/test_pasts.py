"""Lineages beside the predictions: a few at a time, no more waiting than there is sense in."""

import asyncio
import threading
from collections import Counter

from lepton_platform.gateway.pasts import MOST_WAITING, THREADS, Pasts
from lepton_platform.serving.rejected import Rejected
from lepton_platform.stage import StageFailed


def test_few_are_looked_for_at_a_time_and_who_is_too_many_is_refused() -> None:
    go, running, most = threading.Event(), Counter[str](), 0

    def lineage(identifier: str, task: str | None) -> dict:
        nonlocal most
        running["now"] += 1
        most = max(most, running["now"])
        assert go.wait(30)
        running["now"] -= 1
        return {"id": identifier, "training_rows": {"count": 200, "ids": list(range(200))}}

    async def all_at_once() -> list:
        pasts = Pasts(lineage)
        asked = [asyncio.ensure_future(pasts.tell(str(i), None, "some")) for i in range(MOST_WAITING + 3)]
        await asyncio.sleep(0.2)
        go.set()
        told = await asyncio.gather(*asked, return_exceptions=True)
        assert pasts.waiting == 0 and len((await pasts.tell("x", None, "all"))["training_rows"]["ids"]) == 200
        pasts.close()
        return told

    told = asyncio.run(all_at_once())
    refused = [one for one in told if isinstance(one, Rejected)]
    assert len(refused) == 3 and {one.status for one in refused} == {503}
    assert [one["id"] for one in told[:MOST_WAITING]] == [str(i) for i in range(MOST_WAITING)]
    assert len(told[0]["training_rows"]["ids"]) == 100
    assert most <= THREADS


def test_folders_are_not_told_and_the_place_is_free_again() -> None:
    def lineage(identifier: str, task: str | None) -> dict:
        raise StageFailed("/secret/folder is gone")

    async def ask() -> Rejected:
        pasts = Pasts(lineage)
        try:
            await pasts.tell("x", "sentiment", "some")
        except Rejected as refused:
            assert pasts.waiting == 0
            return refused
        raise AssertionError("it was told")

    refused = asyncio.run(ask())
    assert refused.status == 500 and "secret" not in refused.message
