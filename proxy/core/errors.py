"""Errors by whose fault they are, with everything an answer in the caller's binding needs.

Owns: the error tree, the machine-readable reason, the HTTP status, the facts that may be shown to a caller.
Knows nothing of: bindings and bodies (`core.a2a` renders an error in the caller's own shape), logging, transport.

    HoldfastError
    ├── CallerError      the request cannot be served as it stands (4xx): repeat it unchanged and it fails again
    ├── WorkspaceError   the workspace is away, refused or broke (502, 503, 504)
    └── ProxyError       Holdfast itself could not do its part (500, 503)
"""

from collections.abc import Mapping
from types import MappingProxyType


class HoldfastError(Exception):
    """An answer that is not a success.

    Args:
        status: HTTP status of the answer.
        reason: stable UPPER_SNAKE_CASE word for programs (the `reason` of google.rpc.ErrorInfo in A2A bindings).
        message: one sentence for people; never holds secrets, addresses of internals or tracebacks.
        retry_after: seconds after which a repetition makes sense; becomes `Retry-After`.
        facts: JSON-able members that stand beside `error` in a plain body and in ErrorInfo.metadata in A2A bindings.
    """

    default_status = 500

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        status: int | None = None,
        retry_after: int | None = None,
        facts: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = self.default_status if status is None else status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after
        self.facts: Mapping[str, object] = MappingProxyType(dict(facts or {}))


class CallerError(HoldfastError):
    """The caller's request cannot be served as it stands."""

    default_status = 400


class WorkspaceError(HoldfastError):
    """The workspace could not be reached, refused, or broke in mid-call."""

    default_status = 503


class ProxyError(HoldfastError):
    """Holdfast itself failed: its store, its limits, its own start or stop."""

    default_status = 503
