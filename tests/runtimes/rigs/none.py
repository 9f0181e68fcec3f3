"""What the conformance suite needs to exercise the `none` runtime."""

from typing import Any


def lasting_spec() -> dict[str, Any]:
    """Return the only section there is: nothing is launched."""
    return {"type": "none"}
