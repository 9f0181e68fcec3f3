"""What every store holds to, whatever it is made of: which deferrals it takes, how one may end, what it notes itself.

Owns: these checks and the texts that a store writes into `last_error`. Knows nothing of: how anything is stored.
"""

from typing import Final

from proxy.core.deferral import ACTIVE, EDGES, Deferral, State
from proxy.store import Ending

SUPERSEDED: Final = "expired before it was delivered; a new request with its idempotency key took its place"
LEASE_RAN_OUT: Final = "lease ran out"
HOLDER_GONE: Final = "the proxy that held the lease is gone"
LIFE_OVER: Final = "the life of its workspace that held the lease is over"
SWITCHED: Final = "its workspace is reached in another way now"
UNHEARD: Final = frozenset({LEASE_RAN_OUT, HOLDER_GONE, LIFE_OVER, SWITCHED})
"""Why a deferral was taken back from a holder that may have sent it and said nothing."""


def check_new(deferral: Deferral) -> None:
    """Refuse what no queue can hold.

    Raises:
        ValueError: it is neither queued without nor leased with a lease, it is adopted yet not leased, it has ended.
    """
    if (deferral.state, deferral.lease is not None) not in {(State.QUEUED, False), (State.LEASED, True)}:
        raise ValueError(f"a new deferral is queued, or leased with a lease; this one is {deferral.state}")
    if deferral.adopted and deferral.state is not State.LEASED:
        raise ValueError("an adopted deferral is leased: its first call is still running")
    if deferral.completed_at is not None:
        raise ValueError("a new deferral has not ended")


def check_end(lease_token: str | None, ending: Ending) -> State:
    """Return the state that a deferral must have to end so.

    Raises:
        ValueError: no edge leads from there to the ending's state, or that state is no end.
    """
    source = State.QUEUED if lease_token is None else State.LEASED
    if ending.state in ACTIVE or (source, ending.state) not in EDGES:
        raise ValueError(f"{source} -> {ending.state} is no end of a deferral")
    return source


def check_listing(workspace_id: str | None, caller: str | None) -> None:
    """Refuse a listing that no index answers.

    Raises:
        ValueError: one caller's deferrals in all workspaces.
    """
    if caller is not None and workspace_id is None:
        raise ValueError("a caller's deferrals are listed by workspace")
