"""What can be set about reservations, from the environment."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Read from `RESERVATIONS_*`."""

    model_config = SettingsConfigDict(env_prefix="RESERVATIONS_", env_ignore_empty=True)

    #: How long a step of a trip waits for its answer, and a choreographed trip for its end.
    answer_s: float = Field(default=60, gt=0, le=365 * 24 * 3600)
