"""Owns workspaces that somebody else's service starts, stops and looks at, when it is told so by a signed request.

Knows nothing of sockets (the composition root gives it a way to POST), of what the service does, or of verdicts. What
is remembered of a workload, and how its end is seen, is `outside`'s.

Theory of operation. A request carries an id that names what is wanted and nothing else: `WORKSPACE:GENERATION:start`.
Every repetition has the same id, whether it comes from a retry, from a proxy that died or from one that asks again, so
a receiver that remembers ids does everything once. Starts and stops are repeated after a broken connection, a timeout,
429 and 5xx; any other answer is final. A look is asked once: whoever wants to know asks again anyway.
"""

import asyncio
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt

from proxy.core.addresses import AddressPolicy, UnsafeUrl, check_url
from proxy.core.liveness import ProbeState
from proxy.core.masking import masked
from proxy.core.times import micros
from proxy.runtimes import Launch, Posted, RuntimeContext, RuntimeFailure, outside, section, signing
from proxy.runtimes.outside import Sight, Workload

STATES: Final = {
    "running": ProbeState.RUNNING,
    "starting": ProbeState.STARTING,
    "stopped": ProbeState.NOT_RUNNING,
    "gone": ProbeState.GONE,
}

TIMEOUT: Final = 10.0
TRIES: Final = 5
"""Seconds that one request may take, and how often a start or stop is sent at most, where a section says no more."""

FIRST_WAIT: Final = 0.5
LONGEST_WAIT: Final = 30.0
"""Seconds between two tries: the first wait, doubled with each, and the longest; half of each wait is chance."""

MOST_ANSWER: Final = 64 * 1024
"""Bytes of an answer that are read."""

_MOST_TRIES: Final = 20
_MOST_HANDLE: Final = 200
_SUCCESS: Final = range(200, 300)
_TOO_MANY: Final = 429
_FIRST_SERVER_ERROR: Final = 500
_MICROS: Final = 1_000_000


class Runtime(outside.Outside):
    """Workloads behind a URL."""

    name: ClassVar[str] = "webhook"
    host_bound: ClassVar[bool] = False

    def __init__(self, context: RuntimeContext) -> None:
        super().__init__(context, _Hook(context))
        self._addresses = context.addresses

    def check(self, spec: Mapping[str, Any]) -> list[str]:
        """Return every problem of the section; see docs/runtimes.md for its keys."""
        problems = section.problems_of(spec, _CHECKS, "url")
        if isinstance(spec.get("url"), str):
            plain_http = spec.get("plain_http") is True
            problems += [f"runtime.url: {found}" for found in _check_url(spec["url"], self._addresses, plain_http)]
        given = [key for key in _SECRETS if key in spec]
        if len(given) != 1:
            problems.append(f"runtime.secret_file: exactly one of {', '.join(_SECRETS)} is needed")
        elif not problems:
            try:
                _key(spec)
            except RuntimeFailure as failure:
                problems.append(f"runtime.{given[0]}: {failure.detail}")
        return problems


class _Repeatable(Exception):  # noqa: N818 - it says what may be done about it
    """A request that failed for now. `wait`: seconds that the receiver asked for."""

    def __init__(self, failure: RuntimeFailure, wait: float = 0.0) -> None:
        super().__init__(failure.detail)
        self.failure = failure
        self.wait = wait


class _Hook:
    """The three verbs, each a POST."""

    def __init__(self, context: RuntimeContext) -> None:
        self._now = context.now
        self._chance = context.chance
        self._post = context.post
        self._looks = 0

    def can_look(self, spec: Mapping[str, Any]) -> bool:
        return bool(spec.get("inspect", True))

    async def start(self, launch: Launch, folder: Path) -> str:
        """Ask for a start; RuntimeFailure `hook_refused`, `hook_failed`, `no_network`, `bad_secret`."""
        del folder
        said = {
            "action": "start",
            "workspace": launch.workspace_id,
            "incarnation": launch.incarnation,
            "generation": launch.generation,
            "boot_id": launch.env.get("HOLDFAST_BOOT_ID"),
            "env": {**launch.spec.get("env", {}), **launch.env, "HOLDFAST_GENERATION": str(launch.generation)},
            "config": json.loads(launch.data) if launch.data is not None else {},
        }
        answer = await self._insist(launch.spec, f"{launch.workspace_id}:{launch.generation}:start", said)
        handle = _members(answer).get("handle")
        return handle[:_MOST_HANDLE] if isinstance(handle, str) else f"generation {launch.generation}"

    async def stop(self, workload: Workload, generation: int, grace: float) -> None:
        """Ask for a stop of what is older than `generation`; RuntimeFailure as for a start."""
        said = {**_named("stop", workload), "before_generation": generation, "grace": grace}
        await self._insist(workload.spec, f"{workload.workspace_id}:{generation}:stop", said)

    async def look(self, workload: Workload) -> Sight:
        """Ask how it is: `{"state": "running"|"starting"|"stopped"|"gone", "exit_code"?}`; anything else is ERROR."""
        if not self.can_look(workload.spec):
            return Sight(state=ProbeState.ERROR)
        self._looks += 1  # every look is a question of its own
        message_id = f"{workload.workspace_id}:{workload.generation}:inspect:{micros(self._now())}-{self._looks}"
        try:
            answer = await self._send(workload.spec, message_id, _named("inspect", workload))
        except (_Repeatable, RuntimeFailure):
            return Sight(state=ProbeState.ERROR)
        said = _members(answer)
        state, code = said.get("state"), said.get("exit_code")
        return Sight(
            state=STATES.get(state, ProbeState.ERROR) if isinstance(state, str) else ProbeState.ERROR,
            exit_code=code if isinstance(code, int) and not isinstance(code, bool) else None,
        )

    async def _insist(self, spec: Mapping[str, Any], message_id: str, said: Mapping[str, Any]) -> Posted:
        """Send it until it is taken or refused, a bounded number of times."""
        tries = AsyncRetrying(
            stop=stop_after_attempt(int(spec.get("tries", TRIES))),
            wait=self._wait,
            retry=retry_if_exception_type(_Repeatable),
            reraise=True,
        )
        try:
            async for attempt in tries:
                with attempt:
                    return await self._send(spec, message_id, said)
        except _Repeatable as last:
            raise last.failure from None
        raise AssertionError("a bounded number of tries ends in an answer or an exception")

    def _wait(self, state: RetryCallState) -> float:
        longest = min(FIRST_WAIT * 2.0 ** min(state.attempt_number - 1, 30), LONGEST_WAIT)
        share = self._chance.random() if self._chance is not None else 1.0
        problem = state.outcome.exception() if state.outcome is not None else None
        asked_for = problem.wait if isinstance(problem, _Repeatable) else 0.0
        return max(longest * (1 + share) / 2, min(asked_for, LONGEST_WAIT))

    async def _send(self, spec: Mapping[str, Any], message_id: str, said: Mapping[str, Any]) -> Posted:
        """Send it once; an answer below 300 is returned, any other raises."""
        if self._post is None:
            raise RuntimeFailure("no_network", "this proxy was started without a network")
        key = await asyncio.to_thread(_key, spec)
        body = json.dumps(said, separators=(",", ":")).encode()
        timestamp = micros(self._now()) // _MICROS
        headers = (
            (b"Content-Type", b"application/json"),
            (b"webhook-id", message_id.encode()),
            (b"webhook-timestamp", str(timestamp).encode()),
            (b"webhook-signature", signing.sign(key, message_id, timestamp, body).encode()),
            (b"Idempotency-Key", message_id.encode()),
        )
        limit = float(spec.get("timeout", TIMEOUT))
        try:
            answer = await self._post(spec["url"], headers=headers, body=body, timeout=limit, max_bytes=MOST_ANSWER)
        except PermissionError:
            raise RuntimeFailure("hook_refused", "the hook's address must not be dialled (upstream_allow)") from None
        except TimeoutError:
            raise _Repeatable(RuntimeFailure("hook_failed", f"the hook did not answer within {limit:g} s")) from None
        except OSError as problem:
            raise _Repeatable(RuntimeFailure("hook_failed", f"the hook cannot be reached ({problem})")) from None
        if answer.status in _SUCCESS:
            return answer
        failure = RuntimeFailure("hook_refused", f"the hook answered {answer.status}{_shown(answer)}")
        if answer.status == _TOO_MANY or answer.status >= _FIRST_SERVER_ERROR:
            raise _Repeatable(RuntimeFailure("hook_failed", failure.detail), _seconds(answer.retry_after))
        raise failure


def _named(action: str, workload: Workload) -> dict[str, Any]:
    return {
        "action": action,
        "workspace": workload.workspace_id,
        "incarnation": workload.incarnation,
        "generation": workload.generation,
    }


def _key(spec: Mapping[str, Any]) -> bytes:
    """Read the secret where the section says; RuntimeFailure `bad_secret`, whose sentence never holds it."""
    try:
        if "secret_env" in spec:
            text = os.environ.get(spec["secret_env"])
            if text is None:
                raise RuntimeFailure("bad_secret", f"the proxy has no environment variable {spec['secret_env']}")
        elif "secret_file" in spec:
            text = Path(spec["secret_file"]).read_text(encoding="utf-8")
        else:
            text = spec["secret"]
        return signing.key_of(text)
    except (OSError, UnicodeDecodeError) as problem:
        raise RuntimeFailure("bad_secret", f"the secret's file cannot be read: {problem}") from None
    except signing.BadSecret as problem:
        raise RuntimeFailure("bad_secret", str(problem)) from None


def _members(answer: Posted) -> dict[str, Any]:
    """The members of an answer's JSON object; none where it is no such thing."""
    try:
        said = json.loads(answer.body or b"{}")
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _shown(answer: Posted) -> str:
    """What a refusal says for itself, as far as it may be shown."""
    said = _members(answer).get("error")
    return f": {str(masked('', said))[:200]}" if isinstance(said, str) else ""


def _seconds(text: str | None) -> float:
    return float(text) if text is not None and text.isascii() and text.isdigit() else 0.0


def _check_url(url: str, policy: AddressPolicy, plain_http: bool) -> list[str]:
    try:
        checked = check_url(url, policy)
    except UnsafeUrl as problem:
        return [str(problem)]
    local = checked.address is not None or checked.host == "localhost"
    if checked.scheme == "http" and not (local or plain_http):
        return ["the workspace's token travels to it: must be https, or say plain_http = true"]
    return []


def _is_text(value: Any) -> list[str]:
    return [] if isinstance(value, str) and value else ["must be a text that is not empty"]


_SECRETS: Final = ("secret_env", "secret_file", "secret")

_CHECKS: Final[Mapping[str, section.Check]] = {
    **outside.CHECKS,
    "type": section.one_word("webhook"),
    "url": _is_text,
    "secret": _is_text,
    "secret_env": _is_text,
    "secret_file": section.is_absolute_path,
    "env": section.environment(section.is_ours),
    "inspect": section.is_switch,
    "plain_http": section.is_switch,
    "timeout": section.is_patience,
    "tries": section.count(1, _MOST_TRIES),
}
