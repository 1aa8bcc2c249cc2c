"""What can be set about conducted orders, from the environment."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Read from `ORDER_PROCESS_*`."""

    model_config = SettingsConfigDict(env_prefix="ORDER_PROCESS_", env_ignore_empty=True)

    #: How long each step waits for its answer before the order is undone.
    answer_s: float = Field(default=60, gt=0, le=365 * 24 * 3600)
