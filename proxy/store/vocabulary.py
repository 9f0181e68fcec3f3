"""Words that every store writes into `last_error`, so that all stores write the same.

Owns: these texts. Knows nothing of: when they are written.
"""

from typing import Final

SUPERSEDED: Final = "expired before it was delivered; a new request with its idempotency key took its place"
LEASE_RAN_OUT: Final = "lease ran out"
HOLDER_GONE: Final = "the proxy that held the lease is gone"
