"""What can be set about orders, from the environment."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Read from `ORDERS_*`."""

    model_config = SettingsConfigDict(env_prefix="ORDERS_", env_ignore_empty=True)

    #: How long an order may stay open before it is cancelled.
    deadline_s: float = Field(default=120, gt=0, le=365 * 24 * 3600)
