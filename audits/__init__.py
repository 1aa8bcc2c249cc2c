"""What must be true of the examples' own books; `choreo audit` runs what is named here."""

from audits.accounts import accounts, heard_once
from audits.ledgers import strangers, there
from audits.mails import mails
from audits.orders import orders, stock
from audits.points import points
from audits.trips import places, trips

__all__ = [
    "accounts",
    "heard_once",
    "mails",
    "orders",
    "places",
    "points",
    "stock",
    "strangers",
    "there",
    "trips",
]
