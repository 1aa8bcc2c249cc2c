"""Who a customer is, wherever a message speaks of one."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from .words import PLAIN

CustomerId = Annotated[str, Field(min_length=1, max_length=64, pattern=PLAIN)]
#: One address, without a display name.
Email = Annotated[
    str, Field(max_length=254, pattern=r"^[^@\s,;<>\"()]+@[^@\s,;<>\"()]+\.[^@\s,;<>\"()]+$")
]


class Customer(BaseModel):
    """Who orders or travels, and where the parcel and the mail go."""

    model_config = ConfigDict(frozen=True)

    customer_id: CustomerId
    email: Email
    address: Annotated[str, Field(min_length=1, max_length=500, pattern=PLAIN)]
    member: bool = False
