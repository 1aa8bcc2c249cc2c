"""Who is measured, and what must come out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Variant:
    """One way to make the hop."""

    key: str
    title: str
    module: str
    #: SQLAlchemy's driver, for who keeps its memory in a database.
    database: (
        Literal["sqlite", "sqlite+aiosqlite", "postgresql+asyncpg", "postgresql+psycopg"] | None
    )
    #: The slow ones get fewer messages, so that each takes about as long.
    share: float = 1.0
    #: How many processes share the queue and the database.
    instances: int = 1

    @property
    def is_ours(self) -> bool:
        """Whether its messages come with choreo's envelope."""
        return self.module == "benchmark.ours"

    @property
    def on_postgres(self) -> bool:
        """Whether it needs a PostgreSQL."""
        return self.database is not None and self.database.startswith("postgresql")


_TWIN = "benchmark.peers.faststream_twin"
VARIANTS = (
    Variant("raw", "raw aio-pika, no database", "benchmark.peers.raw", None),
    Variant("faststream", "FastStream bare, no database", "benchmark.peers.faststream_bare", None),
    Variant("twin-sqlite", "FastStream, inbox + outbox, SQLite", _TWIN, "sqlite+aiosqlite", 0.2),
    Variant(
        "twin-postgres", "FastStream, inbox + outbox, PostgreSQL", _TWIN, "postgresql+asyncpg", 0.2
    ),
    Variant("choreo-sqlite", "choreo, SQLite", "benchmark.ours", "sqlite"),
    Variant("choreo-postgres", "choreo, PostgreSQL", "benchmark.ours", "postgresql+psycopg"),
    Variant(
        "choreo-postgres-2", "choreo, PostgreSQL, two instances", "benchmark.ours",
        "postgresql+psycopg", instances=2,
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Target:
    """How many times as fast as another a variant must be."""

    who: str
    whom: str
    at_least: float


#: They hold for the first table: with the journal bound to nobody.
TARGETS = (
    Target("choreo-sqlite", "faststream", 1.5),
    Target("choreo-sqlite", "raw", 0.9),
    Target("choreo-postgres", "faststream", 0.8),
    Target("choreo-sqlite", "twin-sqlite", 10.0),
    Target("choreo-postgres", "twin-postgres", 3.5),
    Target("choreo-postgres-2", "choreo-postgres", 1.0),
)
