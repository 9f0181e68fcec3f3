"""What request bodies may hold: one struct per body, validated by msgspec.

Owns: names, types and ranges of the members; unknown members are errors, and all of a body is read or none.
Knows nothing of: what is done with them.
"""

from typing import Annotated, Any, Literal, TypeVar

import msgspec
from aiohttp import web
from msgspec import UNSET as UNSET  # noqa: PLC0414 - doors compare with it
from msgspec import Meta, Struct, UnsetType

from proxy.core.errors import CallerError

MOST_BODY = 1024 * 1024
"""Bytes of an administrative body."""

BROKEN = (web.RequestPayloadError, ConnectionResetError)
"""How a body ends whose sender left or wrote nonsense."""

Seconds = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=0)]
Text = Annotated[str, Meta(max_length=1024)]
Id = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$")]
BootId = Annotated[str, Meta(min_length=1, max_length=256)]
ListedText = Annotated[str, Meta(max_length=160)]
HostName = Annotated[str, Meta(pattern=r"^([a-z0-9][a-z0-9-]{0,62}\.)*[a-z0-9][a-z0-9-]{0,62}$", max_length=253)]


class PolicyBody(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """`policy` of a workspace; every member is optional, durations are seconds."""

    preset: Literal["combined", "hold-first", "verify-first"] | UnsetType = UNSET
    settle_hold: Seconds | UnsetType = UNSET
    settle_window: Seconds | UnsetType = UNSET
    reprobe_delay: Seconds | UnsetType = UNSET
    recent_heartbeat: Seconds | UnsetType = UNSET
    strikes: Count | UnsetType = UNSET
    strike_window: Seconds | UnsetType = UNSET
    reprobe_min_interval: Seconds | UnsetType = UNSET
    fresh_wait: Seconds | UnsetType = UNSET
    fresh_poll: Seconds | UnsetType = UNSET
    provisioning_timeout: Seconds | UnsetType = UNSET
    heartbeat_ttl: Seconds | UnsetType = UNSET
    transition_limit: Seconds | UnsetType = UNSET
    restart_debounce: Seconds | UnsetType = UNSET
    restart_intensity: Count | UnsetType = UNSET
    restart_window: Seconds | UnsetType = UNSET
    restart_backoff: Seconds | UnsetType = UNSET
    restart_backoff_cap: Seconds | UnsetType = UNSET
    restart_backoff_reset: Seconds | UnsetType = UNSET


class WorkspaceBody(Struct, forbid_unknown_fields=True):
    """`PUT /workspaces/{id}`, and a `[workspaces.NAME]` table of the configuration.

    Null makes a workspace a root (`parent`), or gives it the configured list again (`allow_from`),
    or takes its own host name from it (`host`).
    """

    url: Annotated[str, Meta(max_length=2048)] | UnsetType = UNSET
    delivery_mode: Literal["push", "poll"] | UnsetType = UNSET
    boot_id: BootId | UnsetType = UNSET
    agent_card: dict[str, Any] | UnsetType = UNSET
    runtime: dict[str, Any] | UnsetType = UNSET
    probe: dict[str, Any] | UnsetType = UNSET
    parent: Id | UnsetType | None = UNSET
    allow_from: Annotated[tuple[ListedText, ...], Meta(max_length=1000)] | UnsetType | None = UNSET
    max_concurrent: Annotated[int, Meta(ge=1, le=10_000)] | UnsetType = UNSET
    dead_action: Literal["reject", "defer"] | UnsetType = UNSET
    unmanaged_away: Literal["defer", "pass"] | UnsetType = UNSET
    redelivery: Literal["ask_then_always", "always", "never"] | UnsetType = UNSET
    profile: Literal["a2a", "plain", "offline-draft"] | UnsetType = UNSET
    hold_seconds: Seconds | UnsetType = UNSET
    host: HostName | UnsetType | None = UNSET
    journal: Literal["off", "deferred", "all"] | UnsetType = UNSET
    policy: PolicyBody | UnsetType = UNSET

    def said(self) -> dict[str, Any]:
        """The members that were given."""
        return {name: value for name in self.__struct_fields__ if (value := getattr(self, name)) is not UNSET}


class BeatBody(Struct, forbid_unknown_fields=False):
    """`POST .../heartbeat`; members that are not known are ignored, since an agent may be newer than its proxy."""

    boot_id: BootId | None = None
    status: Literal["starting", "ready", "degraded"] | None = None
    active_tasks: Count | None = None
    max_concurrent: Annotated[int, Meta(ge=1)] | None = None
    agent: Literal["up", "down", "unknown"] | None = None
    progress: int | None = None
    expected_silence: Seconds | None = None
    current_task: Text | None = None
    error_rate: Annotated[float, Meta(ge=0, le=1)] | None = None


class ReasonBody(Struct, forbid_unknown_fields=True):
    """`POST .../restart`, `.../restarting`, `.../cancel`."""

    reason: Text = ""


class ParkBody(Struct, forbid_unknown_fields=True):
    """`POST .../pause`, `.../resume`, `.../hibernate`. `force`: open calls are not waited for."""

    reason: Text = ""
    force: bool = False


class ConfigBody(Struct, forbid_unknown_fields=True):
    """`PUT .../config`: merged into the launch settings. `env` members that are null are removed."""

    env: dict[str, str | None] | UnsetType = UNSET
    command: list[str] | UnsetType = UNSET
    cwd: str | UnsetType = UNSET
    delivery_mode: Literal["push", "poll"] | UnsetType = UNSET
    url: Annotated[str, Meta(max_length=2048)] | UnsetType = UNSET
    data: Any | UnsetType = UNSET


class TokenBody(Struct, forbid_unknown_fields=True):
    """`POST /tokens`."""

    kind: Literal["client", "workspace", "join", "read"]
    name: Id


Body = TypeVar("Body", bound=Struct)


async def read(request: web.Request, shape: type[Body]) -> Body:
    """Read a JSON body; an empty one is an empty object.

    Raises:
        CallerError: 413 when it is too long, 400 for what is no JSON, no object, not of that shape, or did not arrive
            whole (its sender died).
    """
    return parse(await read_whole(request) or b"{}", shape)


async def read_whole(request: web.Request, *, most: int = MOST_BODY) -> bytes:
    """Read a body of at most so many bytes; CallerError as `read`."""
    parts: list[bytes] = []
    size = 0
    try:
        async for part in request.content.iter_any():
            size += len(part)
            if size > most:
                raise CallerError(
                    "BODY_TOO_LARGE",
                    f"the request body is larger than {most} bytes",
                    status=413,
                    facts={"max_bytes": most},
                )
            parts.append(part)
    except BROKEN as problem:
        raise CallerError("BROKEN_BODY", "the request body did not arrive whole") from problem
    return b"".join(parts)


def parse(body: bytes, shape: type[Body]) -> Body:
    """Parse a JSON body into its shape; CallerError 400 says what is wrong and where."""
    try:
        # As text: msgspec does not look into members that it skips, and JSON is UTF-8 throughout (RFC 8259, 8.1).
        return msgspec.json.decode(body.decode(), type=shape)
    except msgspec.ValidationError as problem:
        raise CallerError("BAD_BODY", f"the body does not fit: {problem}") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise CallerError("BAD_BODY", "the body is not valid JSON") from None
    except RecursionError:
        raise CallerError("BAD_BODY", "the body is nested too deeply") from None


def take(table: dict[str, Any], shape: type[Body]) -> Body:
    """The same for data that was read elsewhere (a configuration table)."""
    try:
        return msgspec.convert(table, type=shape)
    except msgspec.ValidationError as problem:
        raise CallerError("BAD_BODY", str(problem)) from None
