"""How contracts state money: whole cents, never fractions."""

from typing import Annotated

from pydantic import Field

Cents = Annotated[int, Field(ge=0, le=10**15, description="an amount of money in cents")]
