"""Any history: every store gives the answers of the model, `MemoryStore`, whatever is asked in whatever order."""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from store.examples import T0, a_decision, a_deferral, a_token, a_workspace, at
from store.stores import STORES

from proxy.core.decision import Decision
from proxy.core.deferral import Deferral, Lease, State, StoredAnswer, StoredTask, poller
from proxy.core.restart import Phase, Restart, Trigger
from proxy.core.workspace import Workspace
from proxy.store import Ending, QueueLimits, Requeue, Signs, Sought, Store, StoreFailure
from proxy.store.journal import Events, JournalLimits
from proxy.store.memory import MemoryStore

WORKSPACES = st.sampled_from(["w", "v"])
CONTEXTS = st.sampled_from([None, "c", "c", "e"])
PRIORITIES = st.sampled_from([10, 50, 100])
SECONDS = st.integers(0, 40)
TASK = StoredTask(json=b"{}", version="1.0", state="working")


def plain(value: Any) -> Any:
    """A value without what each store may choose for itself: sequence numbers, kinds of sequences."""
    if isinstance(value, Deferral):
        value = replace(value, seq=0)
    if is_dataclass(value) and not isinstance(value, type):
        return {"is": type(value).__name__, **{each.name: plain(getattr(value, each.name)) for each in fields(value)}}
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [plain(each) for each in value]
    return value


def line_of(deferral: Deferral) -> Decision:
    """What the log says of a deferral that a store has changed by itself."""
    return a_decision(f"{deferral.state} {deferral.tries}", receipt=deferral.id)


class Histories(RuleBasedStateMachine):
    """Two stores live through the same history. `kind` names the one under test."""

    kind = "sqlite"

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.directory = tempfile.TemporaryDirectory()
        self.model: Store = MemoryStore()
        self.tested = STORES[self.kind](Path(self.directory.name))
        self.now = T0
        self.count = 0
        self.versions: dict[str, Workspace] = {}
        for store in (self.model, self.tested):
            self.runner.run(store.open())
        for workspace_id in ("w", "v"):
            self.versions[workspace_id] = self.both(lambda store, name=workspace_id: store.create(a_workspace(name)))

    def teardown(self) -> None:
        for store in (self.model, self.tested):
            self.runner.run(store.aclose())
        self.runner.close()
        self.directory.cleanup()

    def both(self, ask: Callable[[Store], Awaitable[Any]]) -> Any:
        """Ask both; they must say the same, or fail for the same reason."""

        async def answer(store: Store) -> Any:
            try:
                return await ask(store)
            except (StoreFailure, ValueError) as problem:
                return f"{type(problem).__name__} {getattr(problem, 'reason', '')}"

        expected = self.runner.run(answer(self.model))
        assert plain(self.runner.run(answer(self.tested))) == plain(expected)
        return expected

    def after(self, seconds: float) -> datetime:
        return self.now + timedelta(seconds=seconds)

    @rule(seconds=st.sampled_from([0.000001, 1, 5, 20, 60]))
    def time_passes(self, seconds):
        self.now = self.after(seconds)

    # Deferrals

    @rule(
        workspace=WORKSPACES,
        context=CONTEXTS,
        priority=PRIORITIES,
        key=st.sampled_from([None, "k", "l"]),
        digest=st.sampled_from(["x", "y"]),
        caller=st.sampled_from([None, "a", "a", "b"]),
        ttl=SECONDS,
        wait=st.integers(0, 10),
        leased=st.sampled_from([None, None, "plain", "adopted"]),
        rows=st.sampled_from([0, 0, 3]),
        size=st.sampled_from([0, 0, 30]),
        since=st.sampled_from([None, 5, 100]),
        of_caller=st.sampled_from([0, 0, 2]),
        body=st.sampled_from([b"", b"hello"]),
    )
    def enqueue(
        self,
        *,
        workspace,
        context,
        priority,
        key,
        digest,
        caller,
        ttl,
        wait,
        leased,
        rows,
        size,
        since,
        of_caller,
        body,
    ):
        self.count += 1
        deferral = a_deferral(
            f"d{self.count}",
            workspace_id=workspace,
            context_id=context,
            priority=priority,
            idempotency_key=key,
            digest=digest,
            caller=caller,
            enqueued_at=self.now,
            expires_at=self.after(ttl),
            next_attempt_at=self.after(wait),
            task_id=f"t{self.count % 5}",
            body=body,
            credentials=b"sealed" if body else None,
            adopted=leased == "adopted",
            state=State.LEASED if leased else State.QUEUED,
            lease=Lease(token="a", owner="p", until=self.after(30)) if leased else None,
        )
        limits = QueueLimits(
            rows=rows,
            bytes=size,
            idempotency_since=None if since is None else self.after(-since),
            caller_rows=of_caller,
        )
        decision = a_decision(deferral.id, at=self.now)
        self.both(
            lambda store: store.enqueue(
                deferral, limits=limits, decision=decision, expired_task=lambda _: TASK, expired_line=line_of
            )
        )

    @rule(workspace=WORKSPACES, tokens=st.sampled_from(["a", "b", "abc"]), lasts=SECONDS, owner=st.sampled_from("pq"))
    def claim(self, workspace, tokens, lasts, owner):
        leases = [Lease(token=token, owner=owner, until=self.after(lasts)) for token in tokens]
        self.both(lambda store: store.claim(workspace, leases=leases, now=self.now, line=line_of))

    @rule(workspace=WORKSPACES, life=st.integers(1, 2), lasts=SECONDS, size=st.sampled_from([0, 20]))
    def poll(self, workspace, life, lasts, size):
        owner = poller(workspace, life)
        leases = [Lease(token=token, owner=owner, until=self.after(lasts)) for token in "ab"]
        self.both(lambda store: store.claim(workspace, leases=leases, now=self.now, most_bytes=size))

    @rule(workspace=WORKSPACES, life=st.sampled_from([None, 1, 2]))
    def another_life(self, workspace, life):
        but = None if life is None else poller(workspace, life)
        self.both(lambda store: store.release_polled(workspace, but=but, error="why", now=self.now))
        self.both(lambda store: store.hasten(workspace, self.now, turned_away=life == 1))

    @rule(
        back=st.integers(0, 12),
        token=st.sampled_from(["a", "b"]),
        count=st.integers(0, 3),
        told=st.sampled_from(["", "told", "on"]),
    )
    def tell(self, back, token, count, told):
        events = Events(
            data=[b"%d" % self.count] * count,
            at=self.now,
            task=TASK if told else None,
            upstream_task_id="u" if told else None,
            continues=told == "on",
        )
        limits = JournalLimits(rows=4, bytes=0)
        self.both(lambda store: store.append_events(self.one(back), token, events, until=self.after(9), limits=limits))

    @rule(back=st.integers(0, 12), token=st.sampled_from(["a", "b", "c"]), lasts=SECONDS)
    def extend(self, back, token, lasts):
        self.both(lambda store: store.extend(self.one(back), token, until=self.after(lasts)))

    @rule(back=st.integers(0, 12), token=st.sampled_from(["a", "b", "c"]), wait=st.integers(0, 10), maybe=st.booleans())
    def release(self, back, token, wait, maybe):
        requeue = Requeue(next_attempt_at=self.after(wait), attempts=back, maybe=maybe, gateway_since=self.now)
        self.both(lambda store: store.release(self.one(back), token, requeue, decision=a_decision("back")))

    @rule(
        back=st.integers(0, 12),
        token=st.sampled_from([None, "a", "b", "c"]),
        state=st.sampled_from(list(State)),
        full=st.booleans(),
    )
    def finish(self, back, token, state, full):
        answer = StoredAnswer(status=200, headers=(), body=b"done") if full else None
        ending = Ending(
            state=state,
            at=self.now,
            error="why" if full else None,
            maybe=full,
            answer=answer,
            task=TASK if full else None,
            upstream_task_id="u" if full else None,
        )
        decision = a_decision(state.value, workspace_id="v", at=self.now)
        self.both(lambda store: store.finish(self.one(back), token, ending, decision=decision))

    @rule(back=st.integers(0, 12), ttl=SECONDS, told=st.booleans())
    def redrive(self, back, ttl, told):
        task = replace(TASK, state="submitted") if told else None
        self.both(
            lambda store: store.redrive(
                self.one(back),
                now=self.now,
                expires_at=self.after(ttl),
                task=task,
                decision=a_decision("redriven", at=self.now),
            )
        )

    @rule(back=st.integers(0, 12), token=st.sampled_from(["a", "b"]))
    def learn_task(self, back, token):
        self.both(lambda store: store.learn_task(self.one(back), token, f"u{back}", TASK))
        self.both(lambda store: store.update_task(self.one(back), replace(TASK, state="done")))

    @rule(owner=st.sampled_from([None, "p"]))
    def leases_end(self, owner):
        if owner is None:
            self.both(lambda store: store.release_expired(self.now))
        else:
            self.both(lambda store: store.release_owned(owner, self.now))

    @rule(age=SECONDS, limit=st.integers(1, 4))
    def purge(self, age, limit):
        self.both(lambda store: store.purge(ended_before=self.after(-age), limit=limit))

    def one(self, back: int) -> str:
        return f"d{self.count - back}"

    # Workspaces

    @rule(workspace=WORKSPACES, stale=st.booleans(), generation=st.integers(1, 3), no_sign=st.booleans())
    def replace_workspace(self, workspace, stale, generation, no_sign):
        known = self.versions[workspace]
        written = replace(known, url=f"http://{self.count}", version=known.version - stale, incarnation=generation)
        restart = Restart(
            workspace_id=workspace,
            generation=generation,
            incarnation=generation,
            trigger=Trigger.ADMIN,
            reason="",
            rule="",
            phase=Phase.RECORDED,
            started_at=self.now,
            lease_owner="p",
            lease_until=self.after(10),
        )
        self.count += 1
        token = a_token(f"t{self.count % 7}", name=workspace, digest=f"{self.count % 5}", incarnation=generation)
        self.wrote(
            self.both(
                lambda store: store.replace(
                    written,
                    restart=restart,
                    token=token,
                    retire_tokens=generation > 1,
                    no_sign_after=self.after(-5) if no_sign else None,
                )
            )
        )

    def wrote(self, saved: Any) -> None:
        if isinstance(saved, Workspace):
            self.versions[saved.id] = saved

    @rule(workspace=WORKSPACES, rarely=st.integers(0, 6))
    def remove(self, workspace, rarely):
        if rarely:
            return
        known = self.versions[workspace]
        decision = a_decision("removed", workspace_id=workspace)
        self.both(lambda store: store.remove(known, at=self.now, reason="gone", decision=decision))
        self.wrote(self.both(lambda store: store.workspace(workspace)))

    @rule(workspace=WORKSPACES, generation=st.integers(1, 3), held_by=st.sampled_from([None, "p", "q"]))
    def save_restart(self, workspace, generation, held_by):
        restart = Restart(
            workspace_id=workspace,
            generation=generation,
            incarnation=1,
            trigger=Trigger.VERDICT,
            reason="r",
            rule="exited",
            phase=Phase.FINISHED if held_by == "q" else Phase.STOPPED,
            started_at=self.now,
            lease_owner="q" if held_by is None else held_by,
            lease_until=self.after(5),
        )
        self.both(
            lambda store: store.save_restart(restart, held_by=held_by, now=self.now, decision=a_decision("phase"))
        )
        self.both(lambda store: store.restarts(workspace, limit=2))
        self.both(lambda store: store.restart(workspace, generation))

    @rule(
        workspace=st.sampled_from(["w", "v", "unknown"]),
        sign=st.one_of(st.none(), SECONDS),
        down=st.one_of(st.none(), SECONDS),
        tasks=st.one_of(st.none(), SECONDS),
    )
    def record_signs(self, workspace, sign, down, tasks):
        signs = Signs(
            last_sign_at=None if sign is None else at(sign),
            last_heartbeat_at=None if sign is None else at(sign),
            agent_down_at=None if down is None else at(down),
            active_tasks=tasks,
        )
        self.both(lambda store: store.record_signs({workspace: signs}))

    @rule(age=SECONDS, rows=st.integers(0, 3))
    def trim(self, age, rows):
        self.both(lambda store: store.trim_decisions(before=self.after(-age), rows=rows))

    @rule(age=SECONDS, limit=st.integers(1, 3))
    def trim_restarts(self, age, limit):
        self.both(lambda store: store.trim_restarts(after=None, before=self.after(-age), limit=limit))

    # What can be seen at any time

    @invariant()
    def both_look_the_same(self):
        self.both(lambda store: store.snapshot(restarts_since=self.after(-20), completed_since=self.after(-10)))
        for workspace in (None, "w"):
            self.both(lambda store, name=workspace: store.deferrals(workspace_id=name))
        self.both(lambda store: store.due(self.now, limit=9))
        self.both(lambda store: store.overdue(self.now, limit=3))
        for workspace in (None, "w", "unknown"):
            self.both(lambda store, name=workspace: store.stale(before=self.after(-5), workspace_id=name, limit=3))
        self.both(lambda store: store.deferral(self.one(0)))
        self.both(lambda store: store.brief(self.one(1)))
        self.both(lambda store: store.outlook("w", self.now))
        for latest in [self.one(back) for back in range(3)]:
            self.both(lambda store, name=latest: store.journal(name))
            self.both(lambda store, name=latest: store.journal_size(name))
        self.both(lambda store: store.deferral_of_task("w", "t1"))
        self.both(lambda store: store.decisions("w", limit=5))
        self.both(lambda store: store.sought(Sought(receipt=self.one(0)), limit=5))


@pytest.mark.parametrize("kind", sorted(set(STORES) - {"memory"}))
def test_any_history_has_the_answers_of_the_model(kind):
    machine = type("Histories", (Histories,), {"kind": kind})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=12,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
