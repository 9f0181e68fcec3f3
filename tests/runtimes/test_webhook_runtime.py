"""The `webhook` runtime against a real receiver: what is sent and how it is signed, repeated, refused and believed."""

import asyncio
import base64
import hashlib
import hmac
import json
import random
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from proxy.core.liveness import ProbeState
from proxy.runtimes import RuntimeContext, RuntimeFailure, signing, webhook

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
TOKEN = "hf_" + "t" * 43


@dataclass
class Receiver:
    """Answers what is queued (None: not before the test ends), then 200 with `usual`; keeps what came."""

    url: str = ""
    queued: list[web.Response | None] = field(default_factory=list)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    usual: dict[str, Any] = field(default_factory=dict)
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        self.got.append(({name.lower(): value for name, value in request.headers.items()}, await request.read()))
        if not self.queued:
            return web.json_response(self.usual)
        step = self.queued.pop(0)
        if step is None:
            await self.over.wait()
        return step or web.json_response(self.usual)

    def said(self, number: int = -1) -> dict[str, Any]:
        return dict(json.loads(self.got[number][1]))

    def ids(self) -> list[str]:
        return [headers["webhook-id"] for headers, _ in self.got]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    application = web.Application()
    application.router.add_post("/{tail:.*}", made.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield made
    made.over.set()
    await runner.cleanup()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody wait long between two tries."""
    monkeypatch.setattr(webhook, "FIRST_WAIT", 0.005)


def section(receiver: Receiver, **members: Any) -> dict[str, Any]:
    return {"type": "webhook", "url": receiver.url, "secret": SECRET, "watch": 0, "start_grace": 0, **members}


# --- what is sent ----------------------------------------------------------------------------------------------------


def verified(secret: str, headers: dict[str, str], body: bytes, now: int) -> bool:
    """Check a signature as the documentation tells receivers to."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = b".".join((headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body))
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    given = [each.partition(",")[2] for each in headers["webhook-signature"].split() if each.startswith("v1,")]
    fresh = abs(now - int(headers["webhook-timestamp"])) <= 300
    return fresh and any(hmac.compare_digest(expected, each) for each in given)


async def test_a_start_carries_what_a_workload_must_know_signed(bench, launch, receiver) -> None:
    own = {"HOLDFAST_TOKEN": TOKEN, "HOLDFAST_BOOT_ID": "b-9", "HOLDFAST_URL": "http://proxy"}
    runtime = bench.runtime("webhook")
    made = launch(section(receiver, env={"MODEL": "small"}), 3, incarnation=8, env=own, data=b'{"a":[1]}')
    started = await runtime.start(made)
    headers, body = receiver.got[0]
    assert json.loads(body) == {
        "action": "start",
        "workspace": "alpha",
        "incarnation": 8,
        "generation": 3,
        "boot_id": "b-9",
        "env": {"MODEL": "small", **own, "HOLDFAST_GENERATION": "3"},
        "config": {"a": [1]},
    }
    assert (headers["webhook-id"], headers["idempotency-key"]) == ("alpha:3:start", "alpha:3:start")
    assert headers["content-type"] == "application/json"
    now = int(headers["webhook-timestamp"])
    assert verified(SECRET, headers, body, now)
    assert not verified(SECRET, headers, body + b" ", now)
    assert not verified(SECRET, headers, body, now + 301)
    assert not verified("whsec_" + base64.b64encode(b"x" * 32).decode(), headers, body, now)
    assert started.handle == "generation 3"


def test_a_signature_is_the_one_that_the_convention_gives_as_its_example() -> None:
    """The example of the Standard Webhooks specification."""
    key = signing.key_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    assert signing.sign(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body) == (
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


async def test_a_stop_says_what_is_to_end_and_a_look_asks_anew_each_time(bench, launch, receiver) -> None:
    runtime = bench.runtime("webhook")
    await runtime.start(launch(section(receiver), 2))
    receiver.usual = {"state": "running"}
    assert await runtime.inspect("alpha", 2) is ProbeState.RUNNING
    assert await runtime.inspect("alpha", 2) is ProbeState.RUNNING
    receiver.usual = {"state": "stopped"}
    await runtime.stop("alpha", 5, 1.5)
    stop = next(json.loads(body) for _, body in receiver.got if b'"stop"' in body)
    assert stop == {
        "action": "stop",
        "workspace": "alpha",
        "incarnation": 2,
        "generation": 2,
        "before_generation": 5,
        "grace": 1.5,
    }
    assert len(set(receiver.ids())) == len(receiver.got), "no two of them ask for the same"
    assert all(TOKEN not in body.decode() for _, body in receiver.got[1:])


async def test_a_handle_that_the_receiver_gives_is_kept(bench, launch, receiver) -> None:
    receiver.usual = {"handle": "pod/alpha-7f9"}
    runtime = bench.runtime("webhook")
    assert (await runtime.start(launch(section(receiver)))).handle == "pod/alpha-7f9"
    await runtime.aclose()
    [adopted] = await bench.runtime("webhook").adopt()
    assert adopted.handle == "pod/alpha-7f9"


# --- repeated and refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 500, 502, 503])
async def test_a_receiver_that_fails_twice_is_asked_the_same_a_third_time(bench, launch, receiver, status: int) -> None:
    receiver.queued += [web.Response(status=status), web.Response(status=status)]
    await bench.runtime("webhook").start(launch(section(receiver)))
    assert receiver.ids() == ["alpha:1:start"] * 3
    assert len({body for _, body in receiver.got}) == 1


async def test_a_receiver_that_is_slow_once_gets_the_same_again(bench, launch, receiver) -> None:
    receiver.queued.append(None)
    await bench.runtime("webhook").start(launch(section(receiver, timeout=0.5)))
    assert len(receiver.ids()) > 1
    assert set(receiver.ids()) == {"alpha:1:start"}


async def test_nobody_there_is_tried_a_bounded_number_of_times(bench, launch, receiver) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spec = section(receiver, tries=3, url=f"http://127.0.0.1:{port}/hook")
    with pytest.raises(RuntimeFailure) as caught:
        await bench.runtime("webhook").start(launch(spec))
    assert (caught.value.reason, caught.value.detail) == ("hook_failed", "the hook cannot be reached (refused)")
    receiver.queued += [web.Response(status=503, text='{"error":"full"}') for _ in range(9)]
    with pytest.raises(RuntimeFailure) as caught:
        await bench.runtime("webhook").start(launch(section(receiver, tries=3)))
    assert (caught.value.reason, caught.value.detail) == ("hook_failed", "the hook answered 503: full")
    assert len(receiver.got) == 3


@pytest.mark.parametrize("status", [301, 307, 400, 401, 404, 410])
async def test_a_refusal_is_final_and_a_redirect_is_followed_nowhere(bench, launch, receiver, status: int) -> None:
    headers = {"Location": receiver.url + "/elsewhere"}
    text = json.dumps({"error": f"no, and not with {TOKEN}"})
    receiver.queued.append(web.Response(status=status, headers=headers, text=text))
    with pytest.raises(RuntimeFailure) as caught:
        await bench.runtime("webhook").start(launch(section(receiver)))
    assert caught.value.reason == "hook_refused"
    assert caught.value.detail == f"the hook answered {status}: no, and not with hf_***"
    assert len(receiver.got) == 1


async def test_waits_grow_are_spread_by_chance_and_respect_what_the_receiver_asks_for(bench) -> None:
    chance = random.Random(1)  # noqa: S311 - the same chances each time
    hook = webhook._Hook(_context(bench, chance=chance))
    state = _State()
    waits = []
    for number in range(1, 9):
        state.attempt_number = number
        waits.append(hook._wait(state))
    bounds = [min(webhook.FIRST_WAIT * 2 ** (number - 1), webhook.LONGEST_WAIT) for number in range(1, 9)]
    assert all(bound / 2 <= wait <= bound for wait, bound in zip(waits, bounds, strict=True))
    state.failure = webhook._Repeatable(RuntimeFailure("hook_failed", ""), 12.0)
    assert hook._wait(state) == 12.0
    state.failure = webhook._Repeatable(RuntimeFailure("hook_failed", ""), 86_400.0)
    assert hook._wait(state) == webhook.LONGEST_WAIT


async def test_an_address_inside_is_refused_when_it_is_configured_and_when_it_is_dialled(
    bench, launch, receiver
) -> None:
    runtime = bench.runtime("webhook")
    for url in ("http://169.254.169.254/hook", "http://10.0.0.1/hook", "ftp://127.0.0.1/hook"):
        assert any(found.startswith("runtime.url: ") for found in runtime.check(section(receiver, url=url))), url
    runtime.check = lambda _: []  # as if the name had led elsewhere when it was configured
    with pytest.raises(RuntimeFailure) as caught:
        await runtime.start(launch(section(receiver, url="http://169.254.169.254/hook")))
    assert (caught.value.reason, receiver.got) == ("hook_refused", [])


async def test_a_start_that_a_dead_proxy_left_half_done_is_asked_for_under_the_same_id(bench, launch, receiver) -> None:
    before = bench.runtime("webhook")
    receiver.queued.append(web.Response(status=400))
    with pytest.raises(RuntimeFailure):
        await before.start(launch(section(receiver), 4))
    await before.aclose()
    await bench.runtime("webhook").start(launch(section(receiver), 4))
    assert receiver.ids() == ["alpha:4:start"] * 2


# --- what is believed ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (web.json_response({"state": "running"}), ProbeState.RUNNING),
        (web.json_response({"state": "starting"}), ProbeState.STARTING),
        (web.json_response({"state": "stopped"}), ProbeState.NOT_RUNNING),
        (web.json_response({"state": "gone", "exit_code": 1}), ProbeState.GONE),
        (web.json_response({"state": "dead"}), ProbeState.ERROR),
        (web.json_response({"state": 1}), ProbeState.ERROR),
        (web.json_response([]), ProbeState.ERROR),
        (web.json_response({"state": "running"}, status=404), ProbeState.ERROR),
        (web.json_response({"state": "stopped"}, status=500), ProbeState.ERROR),
        (web.Response(text="stopped"), ProbeState.ERROR),
        (web.Response(text='{"state":"stopped","more":"' + "x" * 70_000 + '"}'), ProbeState.ERROR),
    ],
    ids=lambda value: value.value if isinstance(value, ProbeState) else "",
)
async def test_what_an_answer_to_a_look_means(bench, launch, receiver, answer: web.Response, state: ProbeState) -> None:
    runtime = bench.runtime("webhook")
    await runtime.start(launch(section(receiver)))
    receiver.queued.append(answer)
    receiver.usual = {"state": "stopped"}
    assert await runtime.inspect("alpha", 1) is state
    assert len(receiver.got) == 2, "a look is asked once"


async def test_a_receiver_that_is_away_or_slow_is_an_error_and_never_a_death(bench, launch, receiver) -> None:
    runtime = bench.runtime("webhook")
    await runtime.start(launch(section(receiver, timeout=0.1)))
    receiver.queued.append(None)
    assert await runtime.inspect("alpha", 1) is ProbeState.ERROR


async def test_a_receiver_that_cannot_be_asked_leaves_the_workspace_unknown(bench, launch, receiver) -> None:
    runtime = bench.runtime("webhook")
    spec = section(receiver, inspect=False)
    assert not runtime.can_inspect(spec)
    await runtime.start(launch(spec))
    assert await runtime.inspect("alpha", 1) is ProbeState.ERROR
    await runtime.stop("alpha", 2, 0)
    assert [json.loads(body)["action"] for _, body in receiver.got] == ["start", "stop"]


# --- secrets and sections --------------------------------------------------------------------------------------------


async def test_a_secret_is_read_where_the_section_says_and_anew_each_time(
    bench, launch, receiver, tmp_path: Path, monkeypatch
) -> None:
    runtime = bench.runtime("webhook")
    file = tmp_path / "secret"
    file.write_text(SECRET + "\n")
    monkeypatch.setenv("HOOK_SECRET", "another secret, plain text")
    plain = section(receiver)
    del plain["secret"]
    await runtime.start(launch(plain | {"secret_file": str(file)}, workspace_id="beta"))
    await runtime.start(launch(plain | {"secret_env": "HOOK_SECRET"}))
    at = int(receiver.got[0][0]["webhook-timestamp"])
    assert verified(SECRET, *receiver.got[0], at)
    key = signing.key_of("another secret, plain text")
    headers, body = receiver.got[1]
    assert headers["webhook-signature"] == signing.sign(key, headers["webhook-id"], at, body)
    file.write_text("a rotated secret, long enough")
    receiver.usual = {"state": "running"}
    await runtime.inspect("beta", 1)
    key = signing.key_of("a rotated secret, long enough")
    headers, body = receiver.got[2]
    assert headers["webhook-signature"] == signing.sign(key, headers["webhook-id"], at, body)
    file.unlink()
    assert await runtime.inspect("beta", 1) is ProbeState.ERROR
    file.write_text(SECRET)


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({"secret": None}, "runtime.secret_file: exactly one of secret_env, secret_file, secret is needed"),
        ({"secret_env": "PATH"}, "runtime.secret_file: exactly one of secret_env, secret_file, secret is needed"),
        ({"secret": None, "secret_env": "NOT_THERE"}, "runtime.secret_env: the proxy has no environment variable"),
        ({"secret": None, "secret_file": "/nonexistent"}, "runtime.secret_file: the secret's file cannot be read"),
        ({"secret": None, "secret_file": "here"}, "runtime.secret_file: must be an absolute path"),
        ({"secret": "short"}, "runtime.secret: must hold at least 16 bytes"),
        ({"secret": "whsec_***"}, "runtime.secret: what follows whsec_ must be base64"),
        ({"url": "http://hooks.example/x"}, "runtime.url: the workspace's token travels to it: must be https"),
        ({"url": "https://user:pw@hooks.example/x"}, "runtime.url: "),
        ({"tries": 0}, "runtime.tries: must be a whole number from 1 to 20"),
        ({"timeout": 0}, "runtime.timeout: must be a number of seconds above 0"),
        ({"inspect": "no"}, "runtime.inspect: must be true or false"),
        ({"env": {"HOLDFAST_X": "1"}}, "runtime.env: HOLDFAST_X is set by the proxy"),
        ({"method": "PUT"}, "runtime.method: there is no such setting"),
    ],
)
async def test_what_a_section_must_not_say(bench, receiver, members: dict[str, Any], problem: str) -> None:
    spec = {name: value for name, value in section(receiver, **members).items() if value is not None}
    problems = bench.runtime("webhook").check(spec)
    assert any(found.startswith(problem) for found in problems), problems
    assert not any(SECRET in found or "short" in found.partition(": ")[2] for found in problems)


async def test_plain_http_is_allowed_where_it_is_said(bench, receiver) -> None:
    spec = section(receiver, url="http://hooks.example/x", plain_http=True)
    assert bench.runtime("webhook").check(spec) == []


class _State:
    """As much of a retry's state as a wait looks at."""

    attempt_number = 1
    failure: BaseException | None = None

    @property
    def outcome(self) -> Any:
        return self

    def exception(self) -> BaseException | None:
        return self.failure


def _context(bench: Any, **more: Any) -> Any:
    return RuntimeContext(now=lambda: None, data_dir=bench.data_dir, on_exit=print, owner="host-1", **more)
