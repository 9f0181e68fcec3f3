"""What answers look like: one struct per JSON object that `web.views` and the doors make.

Owns: names and types of the members, as they are described to clients. More members may come; these stay.
Knows nothing of: where the values come from. Nothing is encoded with these: they are what is promised, and tests hold
real answers against them.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from proxy.core.decision import Trigger
from proxy.core.deferral import State
from proxy.core.lifecycle import Desired, Lifecycle, Status
from proxy.core.restart import Phase
from proxy.core.restart import Trigger as RestartTrigger
from proxy.core.story import Kind
from proxy.core.workspace import DeliveryMode

When = Annotated[datetime, Meta(tz=True)]
Count = Annotated[int, Meta(ge=0)]


class Error(Struct):
    """What went wrong. Facts that programs may need stand beside `error`."""

    error: str
    retry_after: int | UnsetType = UNSET


class RestartState(Struct):
    """The restart cycle of a workspace: the one that runs, or the last one."""

    state: Literal["none", "running", "recorded", "stopped", "started", "finished", "failed", "superseded"]
    started_at: When | None
    finished_at: When | None
    error: str | None
    count_in_window: Count
    next_allowed_at: When | None


class Verdict(Struct):
    """A verdict, the rule that gave it, and when."""

    verdict: Literal["alive", "busy", "dead", "unknown"]
    rule: str
    at: When | None


class Workspace(Struct):
    """A workspace as Holdfast sees it."""

    id: str
    status: Status
    desired: Desired
    lifecycle: Lifecycle | None
    delivery_mode: DeliveryMode
    url: str | None
    runtime: str
    parent: str | None
    incarnation: Count
    generation: Count
    boot_id: str | None
    config_version: Count
    last_heartbeat_at: When | None
    last_seen: When | None
    registered_at: When | None
    started_at: When | None
    ready_at: When | None
    queue_depth: Count
    in_flight: Count
    restart: RestartState
    settle_until: When | None
    last_verdict: Verdict | None


class NewWorkspace(Workspace, kw_only=True):
    """A workspace that is new, with its token, which is shown this once."""

    token: str


class Parked(Workspace, kw_only=True):
    """A workspace after it was parked or let run again. `changed`: how many workspaces changed, those below too."""

    changed: Count


class Workspaces(Struct):
    """All workspaces."""

    workspaces: list[Workspace]


class Beaten(Struct):
    """What a heartbeat is answered."""

    status: Literal["ok"]
    incarnation: Count
    queue_depth: Count


class Announced(Struct):
    """Whether the announcement opened the settle window, and until when that lasts."""

    announced: bool
    settle_until: When | None


class Removed(Struct):
    """What was removed."""

    status: str
    id: str


class AgentAnswer(Struct):
    """An agent's answer as it is kept."""

    status: int
    headers: dict[str, str]
    body_base64: str


class Deferral(Struct):
    """A request that was put away, by its receipt; never its body."""

    queue_id: str
    workspace_id: str
    status: State
    priority: int
    attempts: Count
    redelivery: Literal["no", "maybe"]
    last_error: str | None
    task_id: str | None
    enqueued_at: When | None
    leased_at: When | None
    completed_at: When | None
    expires_at: When | None
    response: AgentAnswer | None


class Deferrals(Struct):
    """Deferrals, the newest first."""

    items: list[Deferral]


class Dropped(Struct):
    """How many deferrals were dropped."""

    dropped: Count


class Decision(Struct):
    """One line of the decision log; its id only grows."""

    id: Count
    at: When | None
    workspace_id: str
    trigger: Trigger
    verdict: str | None
    rule: str | None
    evidence: dict[str, Any]
    policy: str | None
    action: str
    request_id: str | None
    receipt: str | None
    incarnation: Count
    generation: Count


class Decisions(Struct):
    """Lines of the decision log, the newest first; `before` is where the next page begins, null on the last one."""

    decisions: list[Decision]
    before: Count | None


class Restart(Struct):
    """One restart of a workspace: who asked, why, how far it came. `ready_after` is seconds, once it is finished."""

    workspace_id: str
    generation: Count
    incarnation: Count
    trigger: RestartTrigger
    reason: str
    rule: str | None
    state: Phase
    error: str | None
    started_at: When
    returned_at: When | None
    finished_at: When | None
    ready_after: float | None


class Restarts(Struct):
    """Restarts of a workspace, the newest first; `before` is where the next page begins, null on the last one."""

    restarts: list[Restart]
    before: Count | None


class StoryEvent(Struct):
    """One thing that happened, or `count` of a kind from `at` to `until`; `own` of the subject, or around it."""

    at: When
    until: When | None
    count: Count
    what: str
    why: str
    rule: str | None
    verdict: str | None
    action: str | None
    trigger: Trigger | None
    evidence: dict[str, Any]
    request_id: str | None
    receipt: str | None
    incarnation: Count | None
    generation: Count | None
    own: bool


class Story(Struct):
    """The answer in a sentence or two, and how it came about, the oldest event first.

    `also`: what else the subject names. `whole`: the log still has the story's beginning.
    """

    subject: str
    kind: Kind
    also: list[Kind]
    workspace_id: str
    summary: str
    request_id: str | None
    receipt: str | None
    generation: Count | None
    whole: bool
    timeline: list[StoryEvent]


class RestartAsked(Struct):
    """What became of a request for a restart, and the generation that it concerns."""

    restart: Literal["scheduled", "coalesced", "debounced", "backoff", "abandoned", "unmanaged"]
    generation: Count | UnsetType = UNSET


class Unmanaged(Struct):
    """Nobody can restart this workspace."""

    restart: Literal["unmanaged"]


class Configured(Struct):
    """The configuration's version, and what became of the restart that follows it."""

    version: Count
    restart: Literal["scheduled", "coalesced", "debounced", "backoff", "abandoned", "unmanaged"]


class NewToken(Struct):
    """A token, shown this once."""

    id: str
    token: str


class Token(Struct):
    """What is known of a token; of the secret only its first characters."""

    id: str
    kind: Literal["client", "workspace", "join", "read", "admin"]
    name: str
    prefix: str
    created_at: When | None


class Tokens(Struct):
    """All tokens."""

    tokens: list[Token]


class Healthy(Struct):
    """The process serves."""

    status: Literal["ok"]


class Ready(Struct):
    """The routing table is filled and the store commits: it took so many seconds just now."""

    status: Literal["ok"]
    store_seconds: float


class PlaceGone(Struct):
    """A place that is not known any more: the oldest event that is kept, the place before it, the newest event."""

    error: str
    oldest: str
    resume: str
    latest: str


class CardKey(Struct):
    """A public key of those that sign agent cards (RFC 7517)."""

    kty: Literal["EC"]
    crv: Literal["P-256"]
    x: str
    y: str
    kid: str
    alg: Literal["ES256"]
    use: Literal["sig"]


class CardKeySet(Struct):
    """All of them; the first one signs."""

    keys: list[CardKey]
