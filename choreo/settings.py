"""Every setting, from `CHOREO_*` in the environment or `[tool.choreo]` in pyproject.toml."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    PyprojectTomlConfigSettingsSource,
    SettingsConfigDict,
)

from choreo.contract import explain
from choreo.errors import CannotRunError

Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]


class Settings(BaseSettings):
    """How choreo runs; each field is the environment variable `CHOREO_<FIELD>`."""

    model_config = SettingsConfigDict(
        env_prefix="CHOREO_",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        pyproject_toml_table_header=("tool", "choreo"),
    )

    #: The broker; None joins the private node recorded under `var`.
    amqp_url: str | None = None
    #: `{service}` stands for the service's name; None is a SQLite file under `var`.
    database_url: str | None = None
    #: Where a private broker, SQLite files and sandboxes live.
    var: Path = Path("var")
    #: The package whose members are the services.
    services: str = "services"
    #: The package whose members are the contracts.
    contracts: str = "contracts"
    #: Modules that `choreo up` starts beside the services.
    companions: tuple[str, ...] = ()

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

    #: How long the journal keeps events (RabbitMQ: Y, M, D, h, m, s).
    journal_max_age: Annotated[str, Field(pattern=r"^\d+[YMDhms]$")] = "7D"
    journal_max_bytes: Count = 5_000_000_000

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments first, then the environment, then pyproject.toml."""
        return init_settings, env_settings, PyprojectTomlConfigSettingsSource(settings_cls)

    def database_of(self, service: str) -> str:
        """The URL of the service's own database."""
        if self.database_url is None:
            return f"sqlite:///{self.var / service}.db"
        return self.database_url.replace("{service}", service)


def load(**given: object) -> Settings:
    """Read the settings; raises CannotRunError, naming the variable, if one is wrong."""
    try:
        return Settings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        raise CannotRunError(f"a CHOREO_* setting is wrong: {explain(error)}") from error
