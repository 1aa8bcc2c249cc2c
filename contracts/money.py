"""How contracts state money: whole cents, never fractions; and what pays it."""

from typing import Annotated

from pydantic import Field

from .words import PLAIN

Card = Annotated[str, Field(min_length=1, max_length=64, pattern=PLAIN)]
Cents = Annotated[int, Field(ge=0, le=10**15, description="an amount of money in cents")]
