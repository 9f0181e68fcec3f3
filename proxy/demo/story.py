"""The story of `holdfast demo`: four acts, each with its expectations, then the account.

Owns: what happens in which order, what is expected of it, the exit code.
Knows nothing of: how processes are run, how a client sends, how sums are made.

Exit codes: 0 every expectation was met; 1 one was not; 3 the stage never came up, which says nothing of the product.
"""

import asyncio
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx
from a2a.utils.errors import A2AError

from proxy.demo.caller import Caller, describe
from proxy.demo.ledger import Balance, Evidence, First, Sent, balance, configured_restarts, out_of_order
from proxy.demo.stage import NeverCameUpError, Stage
from proxy.demo.timeline import BOLD, DIM, GREEN, RED, YELLOW, Timeline

DONE, PRODUCT_FAILED, NEVER_CAME_UP = 0, 1, 3
TERMINATED = 128 + signal.SIGTERM

UNAVAILABLE = 503
WORKER, STRICT = "worker", "strict"
SENDERS = 3
PAUSE = 0.25
WORK = "take 0.1 s"
END_LIMIT = 90.0
COMING_BACK = 60.0
MOST_DEATHS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long things take, in seconds. Policy times are scaled by the same idea: a minute becomes seconds."""

    before: float
    after: float
    boot_delay: float
    long_call: float
    policy: dict[str, float] = field(default_factory=dict)


FULL = Pace(
    before=3.0,
    after=3.0,
    boot_delay=2.5,
    long_call=4.0,
    policy={
        "settle_hold": 4.0,
        "settle_window": 8.0,
        "reprobe_delay": 0.5,
        "recent_heartbeat": 3.0,
        "restart_debounce": 8.0,
        "restart_backoff": 4.0,
    },
)
QUICK = Pace(
    before=1.0,
    after=1.0,
    boot_delay=0.8,
    long_call=2.0,
    policy={
        "settle_hold": 2.0,
        "settle_window": 4.0,
        "reprobe_delay": 0.3,
        "recent_heartbeat": 2.0,
        "restart_debounce": 4.0,
        "restart_backoff": 2.5,
    },
)


async def play(*, quick: bool) -> int:
    """Play it and return the exit code. Everything that was started is ended, whatever happens."""
    timeline = Timeline(sys.stdout)
    terminated = False
    loop, me = asyncio.get_running_loop(), asyncio.current_task()

    def terminate() -> None:
        nonlocal terminated
        terminated = True
        if me is not None:
            me.cancel()

    loop.add_signal_handler(signal.SIGTERM, terminate)
    stage = Stage(timeline)
    try:
        async with stage:
            return await Story(stage, timeline, QUICK if quick else FULL).run()
    except NeverCameUpError as problem:
        _say_why(stage, timeline, f"The demo could not be set up, so it says nothing about Holdfast: {problem}.")
        return NEVER_CAME_UP
    except (httpx.HTTPError, A2AError) as problem:
        gone = f"it ended with code {stage.fallen}" if stage.fallen is not None else type(problem).__name__
        _say_why(stage, timeline, f"Holdfast did not answer in the middle of the demo ({gone}: {problem}).")
        return PRODUCT_FAILED
    except asyncio.CancelledError:
        if not terminated:
            raise
        return TERMINATED
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


def _say_why(stage: Stage, timeline: Timeline, sentence: str) -> None:
    timeline.say("")
    timeline.say(sentence, RED)
    for line in stage.last_words():
        timeline.say(f"  | {line}", DIM)
    timeline.say(f"What was written lies in {stage.folder}")


class Story:
    """The acts, on a stage that is set."""

    def __init__(self, stage: Stage, timeline: Timeline, pace: Pace) -> None:
        self._stage = stage
        self._timeline = timeline
        self._pace = pace
        self._caller: Caller
        self._failed: list[str] = []

    async def run(self) -> int:
        """All acts, then the account."""
        timeline = self._timeline
        timeline.say("holdfast demo: real processes, a stock A2A SDK client, authentication on", BOLD)
        times = ", ".join(f"{name} {value:g}" for name, value in self._pace.policy.items())
        timeline.say(f"Policy times are scaled to seconds: {times}.", DIM)
        timeline.say(
            f"Two workspaces: `{WORKER}` (dead_action defer) and `{STRICT}` (dead_action reject), each an agent"
            " process that Holdfast starts and supervises.",
            DIM,
        )
        timeline.say("")
        try:
            token = await self._stage.client_token("demo")
        except httpx.HTTPError as problem:
            raise NeverCameUpError(f"Holdfast cannot be reached ({problem})") from problem
        async with Caller(self._stage.url, token, timeline) as self._caller:
            await self._set_up()
            await self._kill_in_traffic()
            await self._configuration_write()
            await self._both_dead_actions()
            await self._admin_restart()
            return await self._account()

    def _expect(self, met: bool, text: str) -> None:
        self._timeline.expect(met, text)
        if not met:
            self._failed.append(text)

    async def _set_up(self) -> None:
        for name, dead_action in ((WORKER, "defer"), (STRICT, "reject")):
            await self._stage.declare(
                name, dead_action=dead_action, boot_delay=self._pace.boot_delay, policy=self._pace.policy
            )
        for name in (WORKER, STRICT):
            if not await self._stage.ready(name):
                raise NeverCameUpError(f"the agent of workspace {name} did not get ready")
            await self._caller.meet(name)
            greeting = await self._caller.send(name, "hello", context_id="greeting")
            if not greeting.served:
                raise NeverCameUpError(f"the agent of workspace {name} does not answer: {describe(greeting)}")

    # Acts

    async def _kill_in_traffic(self) -> None:
        self._timeline.act(
            1,
            "kill -9 in mid-traffic",
            "Three senders and one long call. The agent is killed while it works on it. Nothing that was sent may be"
            " lost, a conversation keeps its order, and what may have been executed already is sent again with a mark.",
        )
        stage, caller = self._stage, self._caller
        before = stage.now(WORKER)
        first = len(caller.sends)
        async with caller.traffic(WORKER, senders=SENDERS, pause=PAUSE, text=WORK):
            await asyncio.sleep(self._pace.before)
            victim = stage.pid(WORKER, before.incarnation)
            text = f"take {self._pace.long_call:g} s, the long call"
            long_call = asyncio.create_task(caller.send(WORKER, text, context_id="long-call"))
            begun = await self._executing(WORKER, text)
            if victim is not None:
                stage.kill(WORKER, victim)
            long_sent = await long_call
            back = await stage.ready(WORKER, after=before.incarnation, limit=COMING_BACK)
            await asyncio.sleep(self._pace.after)
        ended = await caller.settled(END_LIMIT)
        sends = caller.sends[first:]
        log = await stage.decisions(WORKER)
        self._expect(victim is not None and begun, "the agent was executing the long call when it was killed")
        self._expect(back, "Holdfast saw the exit and restarted the agent")
        self._expect(
            stage.now(WORKER).generation == before.generation + 1, "it was restarted once, whatever failed meanwhile"
        )
        self._expect(
            any(line["verdict"] == "dead" and line["rule"] == "exited" for line in log),
            "its death was DEAD by the rule `exited`",
        )
        self._expect_all_served(sends, ended)
        self._expect(not out_of_order(sends, stage.executions(WORKER)), "the conversation kept its order")
        again = [one for one in stage.executions(WORKER) if one.message_id == long_sent.message_id]
        self._expect(
            len(again) > 1 and all(one.marked for one in again[1:]),
            "the long call was executed again, and the agent was told: Holdfast-Redelivery: maybe",
        )

    async def _configuration_write(self) -> None:
        self._timeline.act(
            2,
            "a configuration write right after a good answer",
            "The write restarts a healthy agent. In the window that follows it neither runs nor listens, which must not"
            " be taken for a death: no second restart, its URL stays, sends wait and are completed.",
        )
        stage, caller = self._stage, self._caller
        before = stage.now(WORKER)
        seen = len(stage.looks[WORKER])
        first = len(caller.sends)
        good = await caller.send(WORKER, "are you well?", context_id="before-the-write")
        said = await stage.ask("PUT", f"/workspaces/{WORKER}/config", {"env": {"DEMO": "written"}})
        self._timeline.event(WORKER, f"PUT config: version {said['version']}, restart {said['restart']}", YELLOW)
        async with caller.traffic(WORKER, senders=SENDERS, pause=PAUSE, text=WORK):
            back = await stage.ready(WORKER, after=before.incarnation, limit=COMING_BACK)
            await asyncio.sleep(self._pace.after)
        ended = await caller.settled(END_LIMIT)
        sends = caller.sends[first:]
        looks = stage.looks[WORKER][seen:]
        log = [line for line in await stage.decisions(WORKER) if line["generation"] > before.generation]
        self._expect(good.first is First.ANSWERED and good.served, "the agent had answered just before")
        self._expect(back and stage.now(WORKER).generation == before.generation + 1, "one restart, not two")
        self._expect(configured_restarts(log, "config") == 1, "and it is the one that was asked for")
        self._expect(not any(line["verdict"] == "dead" for line in log), "no verdict was DEAD")
        self._expect(
            bool(looks) and all(look.url for look in looks), f"the URL was there in each of {len(looks)} looks"
        )
        self._expect(any(sent.first is First.DEFERRED for sent in sends), "sends inside the window were deferred")
        self._expect_all_served(sends, ended)

    async def _both_dead_actions(self) -> None:
        self._timeline.act(
            3,
            "dead_action, both ways",
            "Both agents are killed, and killed again while they boot: now Holdfast knows that they are dead and waits"
            f" before it tries again. `{STRICT}` refuses meanwhile and says that nothing was delivered; `{WORKER}`"
            " defers.",
        )
        stage, caller = self._stage, self._caller
        first = len(caller.sends)
        (worker_held, deferred), (strict_held, refused) = await asyncio.gather(
            self._send_to_the_dead(WORKER), self._send_to_the_dead(STRICT)
        )
        back = [await stage.ready(name) for name in (WORKER, STRICT)]
        repeated = await caller.send(STRICT, refused.text, context_id="both-ways", again=refused)
        ended = await caller.settled(END_LIMIT)
        self._expect(worker_held and strict_held, "both were held back after the second death")
        self._expect(
            refused.first is First.REFUSED and refused.status == UNAVAILABLE and refused.delivered == "no",
            f"`{STRICT}`: 503, delivered: no, Retry-After {refused.retry_after}, {refused.verdict}",
        )
        self._expect(
            deferred.first is First.DEFERRED and (deferred.verdict or "").startswith("dead"),
            f"`{WORKER}`: {deferred.status} and a task, {deferred.verdict}",
        )
        self._expect(all(back), "both came back")
        self._expect(repeated.served, "the refused message was safe to repeat, and was answered")
        self._expect_all_served([sent for sent in caller.sends[first:] if sent is not refused], ended)

    async def _admin_restart(self) -> None:
        self._timeline.act(
            4,
            "a restart by the admin, with a long call in flight",
            "The agent is asked to stop and may finish what it works on; whoever sends meanwhile waits.",
        )
        stage, caller = self._stage, self._caller
        before = stage.now(WORKER)
        first = len(caller.sends)
        text = f"take {self._pace.long_call / 2:g} s, please let me finish"
        long_call = asyncio.create_task(caller.send(WORKER, text, context_id="let-me-finish"))
        begun = await self._executing(WORKER, text)
        said = await stage.ask("POST", f"/workspaces/{WORKER}/restart", {"reason": "the demo asks for it"})
        self._timeline.event(WORKER, f"POST restart: {said['restart']}", YELLOW)
        async with caller.traffic(WORKER, senders=SENDERS, pause=PAUSE, text=WORK):
            back = await stage.ready(WORKER, after=before.incarnation, limit=COMING_BACK)
            await asyncio.sleep(self._pace.after)
        long_sent = await long_call
        ended = await caller.settled(END_LIMIT)
        log = [line for line in await stage.decisions(WORKER) if line["generation"] > before.generation]
        self._expect(begun and long_sent.served, "the long call was answered")
        self._expect(back and configured_restarts(log, "admin") == 1, "one restart, called by the admin")
        self._expect(not any(line["verdict"] == "dead" for line in log), "no verdict was DEAD")
        self._expect_all_served(caller.sends[first:], ended)

    # What acts are made of

    async def _executing(self, workspace: str, text: str) -> bool:
        """Wait until the agent has written down that it executes the message with this text."""

        def begun() -> bool:
            wanted = {sent.message_id for sent in self._caller.sends if sent.text == text}
            return any(one.message_id in wanted for one in self._stage.executions(workspace))

        return await self._stage.until(begun, COMING_BACK)

    async def _send_to_the_dead(self, workspace: str) -> tuple[bool, Sent]:
        """Kill until no agent is there and none is being started; then send at once."""
        held = await self._kill_until_held(workspace)
        return held, await self._caller.send(workspace, "to a dead agent", context_id="both-ways")

    async def _kill_until_held(self, workspace: str) -> bool:
        """Kill the agent, and whatever is started in its place, until Holdfast waits before it starts another.

        As a rule that is the second one, killed while it boots; on a slow machine it may have been ready already.
        """
        for _ in range(MOST_DEATHS):
            life = self._stage.now(workspace).incarnation
            if not await self._kill(workspace, life):
                return False
            if self._stage.now(workspace).incarnation == life:
                return True
        return False

    async def _kill(self, workspace: str, life: int) -> bool:
        """Kill the process of that incarnation as soon as there is one; True once its end has had consequences."""
        stage = self._stage

        def held() -> bool:
            return [(look.status, look.incarnation) for look in stage.looks[workspace][-2:]] == [("offline", life)] * 2

        if not await stage.until(lambda: stage.pid(workspace, life) is not None, COMING_BACK):
            return False
        pid = stage.pid(workspace, life)
        if pid is not None:
            stage.kill(workspace, pid)
        return await stage.until(lambda: held() or stage.now(workspace).incarnation > life, COMING_BACK)

    def _expect_all_served(self, sends: Sequence[Sent], ended: bool) -> None:
        deferred = [sent for sent in sends if sent.first is First.DEFERRED]
        unserved = [sent for sent in sends if not sent.served]
        for sent in unserved:
            outcome = f"task {sent.ended or 'never ended'}" if sent.first is First.DEFERRED else describe(sent)
            self._timeline.event(sent.workspace, f"{sent.message_id}: {outcome}; {sent.said or ''}", RED)
        self._expect(
            ended and not unserved,
            f"all {len(sends)} sends have their answer, {len(deferred)} of them after a deferral",
        )

    # The account

    async def _account(self) -> int:
        stage = self._stage
        seen = Evidence(
            sends=self._caller.sends,
            executions=[one for name in (WORKER, STRICT) for one in stage.executions(name)],
            starts=stage.starts(),
            kills=stage.kills,
            decisions={name: await stage.decisions(name) for name in (WORKER, STRICT)},
        )
        summed = balance(seen)
        self._timeline.table(rows(summed))
        for one in summed.false_restarts:
            self._timeline.say(
                f"False restart: {one.workspace}, incarnation {one.incarnation}, rule {one.rule}, at {one.at:%X.%f}:"
                f" process {one.victim} had not been killed",
                RED,
            )
        kept = summed.kept and not self._failed
        self._timeline.say(
            f"Every expectation was met, in {self._timeline.elapsed:.0f} s."
            if kept
            else f"NOT as promised: {'; '.join(self._failed) or 'see the account'}.",
            GREEN if kept else RED,
        )
        if not kept:
            stage.keep = True
            self._timeline.say(f"What was written lies in {stage.folder}")
        return DONE if kept else PRODUCT_FAILED


def rows(summed: Balance) -> list[tuple[str, int, str, bool]]:
    """The account as lines of a table: name, number, remark, whether it is as it must be."""
    unmarked = len(summed.unmarked)
    marked = "executed again after a kill, each repetition marked"
    return [
        ("sent", summed.sent, "by the SDK client", True),
        ("answered", summed.answered, "at once", True),
        ("deferred", summed.deferred, "202 and a task instead of an error", True),
        ("replayed", summed.replayed, "delivered later, the task completed", summed.replayed == summed.deferred),
        ("refused", summed.refused, "503, nothing delivered, repeated by the client", True),
        ("lost", len(summed.lost), ", ".join(summed.lost), not summed.lost),
        ("duplicates", len(summed.duplicates), f"{unmarked} unmarked" if unmarked else marked, not unmarked),
        (
            "true restarts",
            len(summed.true_restarts),
            "called by a verdict on a process that was killed",
            bool(summed.true_restarts),
        ),
        (
            "false restarts",
            len(summed.false_restarts),
            "called by a verdict on a process that was alive",
            not summed.false_restarts,
        ),
    ]
