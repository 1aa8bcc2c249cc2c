"""An airline that sells seats to Rome."""

from __future__ import annotations

from sandboxes import provider
from sandboxes.provider import Offer

OFFERS = {
    "ROME-1": Offer(price=18_900, places=1_000_000),
    "ROME-LAST": Offer(price=9_900, places=3),
    "ROME-SLOW": Offer(price=18_900, places=1_000_000, slow=True),
    "ROME-LOST": Offer(price=18_900, places=1_000_000, loses_answer=True),
    "ROME-NEVER": Offer(price=4_900, places=0),
}

if __name__ == "__main__":
    provider.main("airline", __doc__ or "", OFFERS)
