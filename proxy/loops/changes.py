"""What of a workspace's record changed, told as events.

Owns: which changes are worth an event.
Knows nothing of: why a record was changed; whoever wrote it says so in a word.
"""

from proxy.core.workspace import Workspace
from proxy.telemetry import EventName, Telemetry

DESCRIBED = ("url", "delivery_mode", "runtime", "parent", "agent_card", "settings", "config_version")
"""What an admin or the workspace itself says of it."""


def tell_changes(telemetry: Telemetry, before: Workspace, after: Workspace, cause: str) -> None:
    """Tell of a new incarnation, another status, another description; of nothing where nothing changed."""
    if after.incarnation != before.incarnation:
        telemetry.emit(
            EventName.WORKSPACE_INCARNATION,
            workspace=after.id,
            incarnation=after.incarnation,
            fields={"cause": cause},
        )
    if after.status is not before.status:
        telemetry.emit(
            EventName.WORKSPACE_STATUS,
            workspace=after.id,
            incarnation=after.incarnation,
            fields={"status": after.status.value, "cause": cause},
        )
    members = [name for name in DESCRIBED if getattr(after, name) != getattr(before, name)]
    if members:
        telemetry.emit(
            EventName.WORKSPACE_CHANGED,
            workspace=after.id,
            incarnation=after.incarnation,
            fields={"members": members, "cause": cause},
        )
