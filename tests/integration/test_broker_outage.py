"""A broker that goes away under load: the services wait for it, and lose and double nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from audit import audit
from cast import ORDERS
from servers import Broker
from stage import until
from starts import mixed
from system import System


@pytest.mark.long
async def test_stopped_and_killed_under_load(
    broker_control: Broker,
    database_url: str,
    create_databases: Callable[..., None],
    tmp_path: Path,
) -> None:
    create_databases(*ORDERS)
    async with System(broker_control.url, database_url, tmp_path) as running:
        await running.start()
        for end in (broker_control.stop, broker_control.kill):
            seen = len(running.logs)
            await running.under_way(mixed, 100)
            await end()
            await broker_control.start()
            await running.ended()
            # Who had nothing to do when it ended may be back only after all is done.
            for event in ("connection lost, opening it again", "connected again"):
                await until(
                    lambda event=event, seen=seen: (  # type: ignore[misc]
                        {said.name for said in running.said(event, seen)} == set(ORDERS)
                    ),
                    f"each service says {event!r}",
                )
        audit(running)
        assert not [said for said in running.logs if said.text.startswith(("ended", "was ended"))]
