"""One request on the data path, as it was asked.

Owns: what came in, parsed no earlier than somebody needs it.
Knows nothing of: what is done with it.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from aiohttp import web

from proxy.core import a2a
from proxy.core.deferral import JournalMode, Priority
from proxy.core.errors import CallerError
from proxy.core.tokens import Owner, TokenKind
from proxy.forward import RawHeaders
from proxy.loops.deferring import Incoming
from proxy.loops.routing import Route
from proxy.settings import Profile
from proxy.web.arrived import Fields

MOST_KEY_LENGTH = 256
MOST_DIGITS = 9


@dataclass(slots=True)
class Asked:
    """A request. `headers` are end to end, with the request id; `fields` are all that the caller sent, by name.

    `names` maps agent ids back to the caller's. `caller` is None where nobody authenticates. `instead` makes an answer,
    with the given header fields, for when the agent gives none. `since` is the event loop's time from which its
    caller's patience is counted, where it has a limit and waiting has begun; `dialled_at` is when its agent was called.
    `contexts` maps an agent's context ids back likewise. `relayed` changes the ids in a stream on its way, and `told`
    hears that it has ended. `afterwards` sees the agent's whole answer (status, body with the caller's ids) and may
    make another of it.
    """

    request_id: str
    route: Route
    caller: Owner | None
    method: str
    tail: str
    headers: RawHeaders
    body: bytes
    fields: Fields
    names: Mapping[str, str] = field(default_factory=dict)
    original_body: bytes | None = None
    instead: Callable[[Mapping[str, str]], web.Response | None] | None = None
    since: float | None = None
    dialled_at: float | None = None
    contexts: Mapping[str, str] = field(default_factory=dict)
    relayed: a2a.EventNames | None = None
    told: Callable[[], Awaitable[None]] | None = None
    afterwards: Callable[[int, bytes], Awaitable[web.Response | None]] | None = None
    profile: Profile = Profile.A2A
    _call: a2a.Call | None = None

    @property
    def prefer(self) -> str:
        """What it prefers (RFC 7240), in lower case."""
        return (self.fields.first(b"prefer") or "").lower()

    @property
    def idempotency_key(self) -> str | None:
        """What makes it the same request when it comes again."""
        return self.fields.first(b"idempotency-key")

    @property
    def priority(self) -> str | None:
        """How urgent it says it is."""
        return self.fields.first(b"holdfast-priority")

    @property
    def user_agent(self) -> str:
        """Its client's program."""
        return self.fields.first(b"user-agent") or ""

    @property
    def timeout(self) -> str | None:
        """For how long its caller waits, as it was written."""
        return self.fields.first(b"x-timeout")

    def lines(self) -> bytes:
        """`headers` as they stand on the wire.

        Raises:
            UpstreamFailure: they cannot be written.
        """
        return b"%bHoldfast-Request-Id: %b\r\n" % (self.fields.lines, self.request_id.encode("ascii"))

    @property
    def written(self) -> bytes:
        """The body as its caller wrote it, whatever the agent gets."""
        return self.body if self.original_body is None else self.original_body

    def call(self) -> a2a.Call:
        """What the request says; read once.

        Raises:
            MalformedBody: it cannot be read, and somebody had to.
        """
        if self._call is None:
            self._call = a2a.read(
                self.method,
                self.tail,
                self._header(b"a2a-version"),
                self._header(b"content-type"),
                self.written,
            )
        return self._call

    def call_or_none(self) -> a2a.Call | None:
        """What the request says, or what could be said of it although its body is malformed."""
        try:
            return self.call()
        except a2a.MalformedBody as problem:
            return problem.call

    def _header(self, wanted: bytes) -> str | None:
        return next((value.decode("latin-1") for name, value in self.headers if name.lower() == wanted), None)

    @property
    def rewritten(self) -> bool:
        """The agent gets another request than the caller sent, and what comes back is read here."""
        return self.original_body is not None

    @property
    def renames(self) -> bool:
        """The agent's answer holds ids that are its own."""
        return bool(self.names or self.contexts)

    def replace_body(self, body: bytes, tail: str, names: Mapping[str, str]) -> None:
        """Send other ids to the agent than the caller used; `call` keeps saying what the caller said."""
        if self.original_body is None:
            self.original_body = self.body
        self.body = body
        self.tail = tail
        self.names = names

    @property
    def deferrable(self) -> bool:
        """It may be put away now: an A2A send in any binding, streamed or not, or a POST that is not A2A.

        Raises:
            MalformedBody: what would be stored must be readable.
        """
        return self.call().deferrable

    @property
    def is_send(self) -> bool:
        """It asks for work: an A2A send in any binding, streamed or not, or a POST that is not A2A.

        A body that nobody can read counts as one, until somebody would have to store it.
        """
        try:
            return self.call().deferrable
        except a2a.MalformedBody:
            return self.method == "POST"

    @property
    def written_ahead(self) -> bool:
        """It is put away before its agent gets it: a streaming send to a workspace that journals all streams.

        Raises:
            MalformedBody: what would be stored must be readable.
        """
        if self.route.effective.journal is not JournalMode.ALL:
            return False
        call = self.call_or_none()
        return call is not None and call.streaming and self.deferrable

    @property
    def adoptable(self) -> bool:
        """A call of it may go on as a deferral when nobody waits for its answer any more; no stream does."""
        try:
            return self.deferrable and not self.call().streaming
        except a2a.MalformedBody:
            return False

    @property
    def repeatable(self) -> bool:
        """It may be put away although it may have reached the agent: it is kept as its caller wrote it."""
        try:
            return self.deferrable
        except a2a.MalformedBody:
            return False

    @property
    def deadline(self) -> float | None:
        """Seconds after which its caller wants an end (`X-Timeout`); None: never."""
        return None if self.fields.patient else seconds(self.timeout)

    @property
    def wait(self) -> float | None:
        """Seconds for which its caller says that it waits (`Prefer: wait`); None: it says nothing."""
        prefer = self.prefer
        if self.fields.patient or "wait" not in prefer:
            return None
        said = [seconds(part.partition("=")[2]) for part in prefer.split(",") if _is_wait(part)]
        return min((wish for wish in said if wish is not None), default=None)

    @property
    def patience(self) -> float | None:
        """Seconds that the caller waits: its deadline or its `Prefer: wait`, the shorter; None: for ever."""
        if self.fields.patient:
            return None
        return min((wish for wish in (self.deadline, self.wait) if wish is not None), default=None)

    @property
    def wants_deferral(self) -> bool:
        """The caller prefers a deferral to a refusal (RFC 7240 `respond-async`, `wait`)."""
        return "respond-async" in self.prefer or "wait=" in self.prefer

    @property
    def prefers_receipt(self) -> bool:
        """The caller wants to be told at once that its request was put away (RFC 7240 `respond-async`)."""
        return "respond-async" in self.prefer

    @property
    def caller_name(self) -> str | None:
        """The caller as idempotency keys and queues name it."""
        return self.caller.caller if self.caller is not None else None

    def incoming(self) -> Incoming:
        """The request as it is put away: as the caller wrote it.

        Raises:
            MalformedBody: what would be stored must be readable.
            CallerError: 400 for a priority or key that there cannot be, 403 for `critical` from others than the admin.
        """
        key = self.idempotency_key
        if key is not None and not (0 < len(key) <= MOST_KEY_LENGTH and key.isascii() and key.isprintable()):
            text = f"Idempotency-Key is 1 to {MOST_KEY_LENGTH} printable ASCII characters"
            raise CallerError("BAD_IDEMPOTENCY_KEY", text)
        own = b"holdfast-request-id"
        return Incoming(
            call=self.call(),
            method=self.method,
            tail=self.tail,
            headers=tuple(pair for pair in self.headers if pair[0].lower() != own),
            body=self.written,
            caller=self.caller_name,
            request_id=self.request_id,
            idempotency_key=key,
            priority=self._priority(),
        )

    def _priority(self) -> int:
        if self.priority is None:
            return Priority.TASK
        priority = Priority.BY_NAME.get(self.priority.strip().lower())
        if priority is None:
            known = ", ".join(Priority.BY_NAME)
            raise CallerError("BAD_PRIORITY", f"Holdfast-Priority is one of {known}")
        if priority == Priority.CRITICAL and self.caller is not None and self.caller.kind is not TokenKind.ADMIN:
            raise CallerError("FORBIDDEN", "priority critical needs the admin's token", status=403)
        return priority


def seconds(text: str | None) -> float | None:
    """A whole number of seconds above 0, below 32 years; None for everything else, which asks for nothing."""
    text = (text or "").strip().strip('"')
    return float(text) if len(text) <= MOST_DIGITS and text.isascii() and text.isdigit() and int(text) > 0 else None


def _is_wait(preference: str) -> bool:
    """Whether one member of `Prefer` is `wait` (RFC 7240 section 4.3)."""
    return preference.partition("=")[0].strip() == "wait"
