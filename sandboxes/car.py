"""A hire firm that lets cars."""

from __future__ import annotations

from sandboxes import provider
from sandboxes.provider import Offer

OFFERS = {
    "CAR-1": Offer(price=11_200, places=1_000_000),
    "CAR-LAST": Offer(price=6_200, places=3),
    "CAR-SLOW": Offer(price=11_200, places=1_000_000, slow=True),
    "CAR-LOST": Offer(price=11_200, places=1_000_000, loses_answer=True),
    "CAR-NEVER": Offer(price=3_200, places=0),
}

if __name__ == "__main__":
    provider.main("car", __doc__ or "", OFFERS)
