"""Every setting, from `CHOREO_*` in the environment or `[tool.choreo]` in pyproject.toml."""

from __future__ import annotations

import os
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    PyprojectTomlConfigSettingsSource,
    SettingsConfigDict,
)

from choreo.errors import CannotRunError, explain

Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]
#: It may hold a password, which stays out of every log and traceback that shows the settings.
Url = Annotated[str | None, Field(repr=False)]
_PREFIX = "CHOREO_"
#: Of `difflib`: but for a letter. A team's own CHOREO_DATABASE_USER is less like our ..._URL.
_LOOKS_LIKE = 0.93
#: RabbitMQ's units of `x-max-age`, in seconds; a year has 365 days, a month 30.
_AGES = {"Y": 31_536_000, "M": 2_592_000, "D": 86_400, "h": 3600, "m": 60, "s": 1}


class Settings(BaseSettings):
    """How choreo runs; each field is the environment variable `CHOREO_<FIELD>`."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        pyproject_toml_table_header=("tool", "choreo"),
    )

    #: The broker, or a cluster's nodes, separated by commas; None joins the private node recorded
    #: under `var`.
    amqp_url: Url = None
    #: RabbitMQ's management API; None is the broker's host and user, port 15672.
    management_url: Url = None
    #: `{service}` stands for the service's name; None is a SQLite file under `var`.
    database_url: Url = None
    #: Where a private broker, SQLite files and sandboxes live.
    var: Path = Path("var")
    #: The package whose members are the services.
    services: str = "services"
    #: The package whose members are the contracts.
    contracts: str = "contracts"
    #: Modules that `choreo up` starts beside the services.
    companions: tuple[str, ...] = ()
    #: The module with the project's own checks for `choreo audit`.
    audits: str | None = None
    #: The module with what `choreo rehearse` needs: stories, stand-ins and invariants.
    rehearsals: str | None = None

    #: A file that is there while the service consumes, for health checks; None makes none.
    ready_file: Path | None = None
    log_format: Literal["auto", "console", "json"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    #: At most so many messages become one transaction.
    batch: Count = 500
    #: At most so many deliveries wait in the process.
    prefetch: Count = 1000
    #: At most so many outside calls are under way.
    calls: Count = 100
    #: At most so many messages wait to be published before receiving pauses.
    backlog: Count = 5000
    #: A longer body is a dead letter.
    max_body_bytes: Count = 1024 * 1024

    #: A message becomes a dead letter after so many attempts.
    attempts: Count = 8
    #: A message that killed its process so often is parked.
    crashes: Count = 5
    retry_first_s: Seconds = 0.5
    retry_longest_s: Seconds = 60.0
    #: The time limit of an outside call whose step names none.
    call_timeout_s: Seconds = 30.0
    publish_timeout_s: Seconds = 15.0
    #: How long what an instance has in hand counts as its own, unless it says so again.
    lease_s: Seconds = 10.0
    #: How often the database is asked for what is due, beside what is known to be.
    poll_s: Seconds = 1.0
    #: How long a stop waits for what is in hand.
    grace_s: Seconds = 20.0
    heartbeat_s: Annotated[int, Field(ge=1)] = 30

    #: A flow in which nothing happened for so long is forgotten, unless something is still to come.
    #: A message of it that comes again after that has its effect again.
    retention_days: Annotated[float, Field(gt=0)] = 30.0
    #: How often old flows are looked for.
    prune_every_s: Seconds = 60.0

    #: How long the journal keeps events (RabbitMQ: Y, M, D, h, m, s).
    journal_max_age: Annotated[str, Field(pattern=r"^\d+[YMDhms]$")] = "7D"
    journal_max_bytes: Count = 5_000_000_000

    @model_validator(mode="after")
    def _remember_longer_than_the_journal(self) -> Self:
        if self.retention_days * 86400 <= self.journal_max_age_s:
            raise ValueError(
                f"retention_days is {self.retention_days:g}, and the journal keeps events for "
                f"{self.journal_max_age}: what is replayed from it would have its effect again; "
                "make CHOREO_RETENTION_DAYS longer"
            )
        return self

    @property
    def journal_max_age_s(self) -> int:
        """How long the journal keeps events, in seconds."""
        return int(self.journal_max_age[:-1]) * _AGES[self.journal_max_age[-1]]

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments first, then the environment, then pyproject.toml.

        Raises CannotRunError if a name is none of a setting. In the environment that is only one
        that is misspelt: others, of services and of their surroundings, may begin with CHOREO_.
        """
        project = PyprojectTomlConfigSettingsSource(settings_cls)
        for name in sorted(project.toml_data.keys() - cls.model_fields.keys()):
            meant = get_close_matches(name, cls.model_fields, 1)
            hint = f"did you mean {meant[0]!r}?" if meant else "delete it"
            raise CannotRunError(f"[tool.choreo] in pyproject.toml: no setting {name!r}: {hint}")
        _refuse_misspelt([name.upper() for name in cls.model_fields])
        return init_settings, env_settings, project

    def database_of(self, service: str) -> str:
        """The URL of the service's own database."""
        if self.database_url is None:
            return f"sqlite:///{self.var / service}.db"
        return self.database_url.replace("{service}", service)


def load(**given: object) -> Settings:
    """Read the settings; raises CannotRunError, naming it, if one is wrong or unknown."""
    try:
        return Settings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        raise CannotRunError(f"a CHOREO_* setting is wrong: {explain(error)}") from error


def _refuse_misspelt(known: Sequence[str]) -> None:
    """Raise CannotRunError if a variable is one of these settings but for a letter."""
    for given in sorted(name.upper() for name, value in os.environ.items() if value):
        name = given.removeprefix(_PREFIX)
        if name == given or name in known:
            continue
        if meant := get_close_matches(name, known, 1, _LOOKS_LIKE):
            raise CannotRunError(f"no setting {given}: did you mean {_PREFIX}{meant[0]}?")
