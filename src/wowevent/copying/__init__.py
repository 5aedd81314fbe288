"""One log into another: events as they are, shared facts, remembered subscriptions; and whether all of it is there.

    past        a range of a log, with what is missing and what cannot be read
    note        what the target knows of a copy that began
    events      Copy: facts and events, so that it can be stopped anywhere and goes on there
    comparing   whether what is read back is the same
    standing    the subscriptions, each where its unread events begin

All of it goes by the Broker protocol alone, so every engine can be copied to every other.
"""

from wowevent.copying.comparing import Compared, Difference, compare
from wowevent.copying.events import Copied, Copy
from wowevent.copying.past import Told
from wowevent.copying.standing import Standing, carry_over

__all__ = ["Compared", "Copied", "Copy", "Difference", "Standing", "Told", "carry_over", "compare"]
