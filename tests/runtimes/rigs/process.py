"""What the conformance suite needs to exercise the `process` runtime."""

from typing import Any


def lasting_spec() -> dict[str, Any]:
    """Return a section whose workload runs until it is stopped."""
    return {"type": "process", "command": ["sleep", "1000"]}


def ending_spec(code: int) -> dict[str, Any]:
    """Return a section whose workload ends by itself, with this exit code."""
    return {"type": "process", "command": ["sh", "-c", f"exit {code}"]}
