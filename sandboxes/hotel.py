"""A hotel that lets rooms."""

from __future__ import annotations

from sandboxes import provider
from sandboxes.provider import Offer

OFFERS = {
    "ROOM-1": Offer(price=24_500, places=1_000_000),
    "ROOM-LAST": Offer(price=14_500, places=3),
    "ROOM-SLOW": Offer(price=24_500, places=1_000_000, slow=True),
    "ROOM-LOST": Offer(price=24_500, places=1_000_000, loses_answer=True),
    "ROOM-NEVER": Offer(price=7_500, places=0),
}

if __name__ == "__main__":
    provider.main("hotel", __doc__ or "", OFFERS)
