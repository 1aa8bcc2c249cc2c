"""The tables that choreo keeps in every service's database."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

metadata = MetaData()

#: Which service owns this database, so that two never share one by mistake.
owner = Table("choreo_owner", metadata, Column("service", String, primary_key=True))

#: One row for each message and handler: the memory that keeps effects single, and the step.
inbox = Table(
    "choreo_inbox",
    metadata,
    Column("message_id", String, primary_key=True),
    Column("handler", String, primary_key=True),
    Column("digest", LargeBinary, nullable=False),
    Column("flow", String, nullable=False),
    Column("subject", String),
    #: begun, started, waiting, done, cancelled or parked: see `choreo.store.memory.Status`.
    Column("status", String, nullable=False),
    #: What a step with an undo announced: a JSON list of [wire type, body].
    Column("outcome", Text),
    #: None, owed or done.
    Column("undo", String),
    #: How often a process began on it and was not heard of again.
    Column("crashes", Integer, nullable=False, default=0),
    #: Seconds since 1970; grows with every row, so that "newest first" has a meaning.
    Column("at", Float, nullable=False),
    sqlite_with_rowid=False,
)
Index("choreo_inbox_flow", inbox.c.flow, inbox.c.handler)
Index("choreo_inbox_at", inbox.c.at)

#: At most one row: how far the service has caught up from the journal, if it ever did.
catch_up = Table(
    "choreo_catch_up",
    metadata,
    #: All up to this offset of the journal is handled.
    Column("offset", BigInteger, primary_key=True, autoincrement=False),
    #: What is older than that, in seconds since 1970, is left out: it may be forgotten.
    Column("oldest", Float, nullable=False),
    #: When it last went on; None once it is over.
    Column("at", Float),
)

#: What is committed and not yet confirmed by the broker.
outbox = Table(
    "choreo_outbox",
    metadata,
    Column("id", String, primary_key=True),
    Column("exchange", String, nullable=False),
    Column("routing_key", String, nullable=False),
    Column("envelope", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("mandatory", Boolean, nullable=False),
    Column("owner", String, nullable=False),
    #: By the database's clock, in seconds since 1970.
    Column("lease_until", Float, nullable=False),
    sqlite_with_rowid=False,
)

#: Everything that must happen later.
due = Table(
    "choreo_due",
    metadata,
    #: retry, call, undo or deadline.
    Column("kind", String, primary_key=True),
    Column("handler", String, primary_key=True),
    Column("message_id", String, primary_key=True),
    Column("flow", String, nullable=False),
    Column("subject", String),
    #: None waits for something else: an undo for its step's outcome.
    Column("at", Float),
    #: The instance that has it in hand; `at` is then when it counts as lost with its process.
    Column("owner", String),
    Column("attempts", Integer, nullable=False, default=0),
    #: How often it was lost with its process.
    Column("crashes", Integer, nullable=False, default=0),
    Column("first_failed", Float),
    Column("last_failed", Float),
    Column("error", Text),
    Column("properties", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
)
Index("choreo_due_at", due.c.at)
#: What is in hand is little of all that is due some day.
_IN_HAND = due.c.owner.is_not(None)
Index("choreo_due_owner", due.c.owner, sqlite_where=_IN_HAND, postgresql_where=_IN_HAND)
Index("choreo_due_flow", due.c.flow, due.c.handler)

#: Handlers that must not run in a flow any more; subject "" is every subject.
tombstones = Table(
    "choreo_tombstones",
    metadata,
    Column("flow", String, primary_key=True),
    Column("handler", String, primary_key=True),
    Column("subject", String, primary_key=True),
    Column("at", Float, nullable=False),
    sqlite_with_rowid=False,
)

#: Messages that nothing more is tried with until a person decides.
dead = Table(
    "choreo_dead",
    metadata,
    Column("id", String, primary_key=True),
    #: "" when the message was refused before any handler.
    Column("handler", String, nullable=False),
    #: What `choreo dead retry` makes of it: a kind of `due`, or "" for a fresh delivery.
    Column("kind", String, nullable=False),
    Column("message_id", String),
    Column("flow", String),
    Column("subject", String),
    Column("reason", Text, nullable=False),
    Column("error", Text),
    Column("attempts", Integer, nullable=False),
    Column("first_failed", Float, nullable=False),
    Column("last_failed", Float, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("properties", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
)
Index("choreo_dead_digest", dead.c.digest)

#: One row for each run of a conductor.
runs = Table(
    "choreo_runs",
    metadata,
    #: The id of the message that started it.
    Column("run", String, primary_key=True),
    Column("conductor", String, primary_key=True),
    Column("flow", String, nullable=False),
    #: What the starting message is about; "" if nothing.
    Column("subject", String, nullable=False),
    #: running, undoing, done or failed: see `choreo.store.runs.RunStatus`.
    Column("status", String, nullable=False),
    #: How many stages lie behind it.
    Column("stage", Integer, nullable=False),
    Column("start", Text, nullable=False),
    #: Why it is undone: the step, and the JSON of [wire type, body] that it was answered.
    Column("failed_step", String),
    Column("failure", Text),
    #: RFC 3339, of the message that moved it last.
    Column("moved", String, nullable=False),
)
Index("choreo_runs_flow", runs.c.flow, runs.c.conductor, runs.c.subject, unique=True)

#: One row for each command that a run has sent.
tasks = Table(
    "choreo_tasks",
    metadata,
    Column("flow", String, primary_key=True),
    Column("step", String, primary_key=True),
    #: What the command, and so its answer, is about; "" if nothing.
    Column("subject", String, primary_key=True),
    Column("run", String, nullable=False),
    Column("conductor", String, nullable=False),
    #: asked, done, refused, late, undoing or undone: see `choreo.store.runs.TaskStatus`.
    Column("status", String, nullable=False),
    #: The id of the message that brought it there.
    Column("since", String, nullable=False),
    #: In which order they were asked, and answered.
    Column("number", Integer, nullable=False),
    Column("answered", Integer, nullable=False),
    #: The JSON of [wire type, body].
    Column("command", Text, nullable=False),
    Column("answer", Text),
)
Index("choreo_tasks_run", tasks.c.run, tasks.c.conductor)
