"""The faults: what a person did wrong, and who must find it; `diffs/` shows each in the code."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

CHECK = "check"
#: The same schedules for every fault, and for the services without one; most come within ten, the
#: two rarest in one of fifty and one of a hundred.
ORDER = "rehearse --flow order --runs 300"
CONDUCTED = "rehearse --flow conducted_order --runs 50"
TRIP = "rehearse --flow trip --runs 100"
REGISTRATION = "rehearse --flow registration --runs 50"
DIFFS = Path(__file__).with_name("diffs")


class Mutant(NamedTuple):
    """The services with a deliberate fault."""

    name: str
    wrong: str
    #: Who must find it; and a pattern for what is to be found, by its rule or its invariant.
    command: str
    says: str

    @property
    def diff(self) -> str:
        """The fault in the code."""
        return (DIFFS / f"{self.name}.diff").read_text(encoding="utf-8")


MUTANTS = (
    # What a step did is not taken back, or not all of it.
    Mutant("undo_gone", "a step has no undo any more", CHECK, r"no-undo: payments\.capture "),
    Mutant("undo_called_final", "a step is called final, and its undo is gone", ORDER, "points: "),
    Mutant(
        "undo_of_one_way", "an undo no longer hears who decides the end", CHECK, "left-undone: "
    ),
    Mutant("undo_forgets_a_line", "an undo gives back one line of many", ORDER, "stock: "),
    Mutant("undo_of_a_wrong_amount", "an undo takes half of it back", ORDER, "balances: "),
    Mutant("undo_says_a_wrong_amount", "nothing is announced as taken back", ORDER, "balances: "),
    Mutant("undo_swallows_an_error", "an undo that failed says it did not", TRIP, "places: "),
    Mutant("refund_not_made", "a refund is announced, and not made", ORDER, "money: "),
    Mutant("refund_of_a_wrong_amount", "half a refund is announced", ORDER, "refunds: "),
    Mutant("conducted_without_undo", "a conductor takes nothing back", CHECK, "left-undone: "),
    Mutant("conducted_for_another", "a conductor takes back what is not its", CONDUCTED, "money: "),
    # Two at once, and one after the other.
    Mutant("unguarded_end", "an order is closed that may be closed already", ORDER, "end: "),
    Mutant("unguarded_move", "a trip is moved on from wherever it is", TRIP, "end: |places: "),
    Mutant("check_then_act", "one handler looks, and a later one acts", ORDER, "end: "),
    Mutant("check_then_enter", "the same, about a mail address", REGISTRATION, "dead letter: "),
    Mutant("stock_below_nothing", "stock is held that is not there", ORDER, "stock: "),
    Mutant("order_of_events", "whatever is heard last is believed", ORDER, "dealings: "),
    # Time, chance and memory.
    Mutant("deadline_gone", "nothing ends what nobody has ended in time", CHECK, "no-deadline: "),
    Mutant("wait_for_good", "a conductor waits for a year", CHECK, "no-deadline: "),
    Mutant(
        "wall_clock", "a mail has another date at each attempt", ORDER, "error: Mailer: the key "
    ),
    Mutant("clock_in_a_row", "when it was handled is kept by the wall clock", ORDER, "replay: "),
    Mutant("randomness", "a handler draws a discount", ORDER, "replay: "),
    Mutant("clock_compared", "what is past is told by the wall clock", TRIP, "reserved: "),
    Mutant("memory", "which orders are open is kept in a global", ORDER, "end: "),
    Mutant("last_link_in_memory", "the chain's end is kept in a global", ORDER, "noted: "),
    # The outside world.
    Mutant("key_of_its_own", "a call has another key at each attempt", ORDER, "money: "),
    Mutant("key_of_the_order", "two calls share a key", ORDER, "error: Carrier: the key "),
    Mutant("lost_answer_is_a_no", "no answer is taken for a refusal", ORDER, "money: "),
    Mutant("lost_answer_by_its_error", "the adapter's own error is one", ORDER, "money: "),
    # What is heard and said.
    Mutant("past_the_pivot", "a parcel is collected before the end", CHECK, r"pivot: shipping\."),
    Mutant("unless_gone", "a cancelled order is confirmed", CHECK, r"pivot: notifications\."),
    Mutant("event_gone", "others wait for what is not announced", CHECK, "unpublished: "),
    Mutant("branch_forgotten", "an annotation lacks the refusal", CHECK, "unpublished: "),
    Mutant("branch_of_two_forgotten", "one of two annotations lacks it", CONDUCTED, "end: "),
    Mutant("wrong_subject", "an event is about the customer, not the order", ORDER, "parcels: "),
    Mutant("two_deciders", "two services cancel an order", CHECK, "two-deciders: |two-owners: "),
)
