"""Requests about the push notification configurations of deferred tasks: set, get, list, delete.

Owns: their answers, the same in both versions and bindings as those of an agent.
Knows nothing of: who may ask (a task is its caller's), what is notified, and when (`loops.notifying`).
"""

from collections.abc import Sequence
from dataclasses import replace

from proxy.core import a2a
from proxy.core.deferral import Deferral
from proxy.loops.push_configs import PushConfigs, told_mark
from proxy.loops.tasks import TaskAnswer
from proxy.store import Store
from proxy.store.pushes import Progress, Push

OK = 200
READ = 500
"""Events of a journal that are passed over at a time."""


class PushRequests:
    """Answers them from the store, whether the agent is there or not."""

    def __init__(self, *, store: Store, configs: PushConfigs) -> None:
        self._store = store
        self._configs = configs

    async def answer(self, call: a2a.Call, tail: str, deferral: Deferral) -> TaskAnswer:
        """Answer one about the task of a deferral; `tail` is its path.

        Raises:
            CallerError: 400, what was to be set cannot be used; nothing was stored.
            VaultFailure: what is stored cannot be opened any more.
        """
        task_id = deferral.task_id or ""
        if call.operation is a2a.Operation.PUSH_SET:
            config = await self._set(call, deferral, task_id)
            return TaskAnswer(status=OK, body=a2a.push_config_answer(call, config, task_id))
        named = a2a.push_config_id(call, tail)
        if call.operation is a2a.Operation.PUSH_DELETE:
            for push in await self._of_task(deferral):
                if push.stored.id == named:
                    await self._store.drop_push(push.deferral_id, named)
            return TaskAnswer(status=OK, body=a2a.push_deleted_answer(call))
        configs = [self._configs.opened(push, deferral) for push in await self._of_task(deferral)]
        if call.operation is a2a.Operation.PUSH_LIST:
            return TaskAnswer(status=OK, body=a2a.push_configs_answer(call, configs, task_id))
        found = [config for config in configs if named in {"", config.id}]
        if not found:
            missing = a2a.task_not_found(call)
            return TaskAnswer(status=missing.status, body=missing.body, content_type=missing.content_type)
        return TaskAnswer(status=OK, body=a2a.push_config_answer(call, found[0], task_id))

    async def taken(self, call: a2a.Call, body: bytes, deferral: Deferral) -> bytes:
        """The body of a message that goes to its agent at once; the configuration in it is kept, and taken out.

        So that an agent never notifies about a task to which Holdfast gave an id of its own.

        Raises:
            CallerError: 400, it cannot be used; nothing was stored.
        """
        without, config = a2a.take_push_config(call, body)
        if config is not None and a2a.is_provisional(deferral.task_id or ""):
            await self._keep(config, call.version, deferral)
            return without
        return body

    async def _of_task(self, deferral: Deferral) -> Sequence[Push]:
        return await self._store.pushes_of_task(deferral.workspace_id, deferral.task_id or "")

    async def _set(self, call: a2a.Call, deferral: Deferral, task_id: str) -> a2a.PushConfig:
        config = a2a.read_push_config(call)
        config = replace(config, id=config.id or task_id)
        await self._keep(config, call.version, deferral)
        return config

    async def _keep(self, config: a2a.PushConfig, version: a2a.Version, deferral: Deferral) -> None:
        """Keep a configuration from now on: what happened before it came is not told to its receiver."""
        config = replace(config, id=config.id or deferral.task_id or "")
        task = deferral.task
        told = told_mark(task.state, task.json) if task is not None and task.state != "submitted" else ""
        known = Progress(through=await self._last_event(deferral.id), told=told)
        for push in await self._of_task(deferral):
            if push.stored.id == config.id and push.deferral_id != deferral.id:
                await self._store.drop_push(push.deferral_id, config.id)
        await self._configs.keep(deferral, config, version, known)

    async def _last_event(self, deferral_id: str) -> int:
        last = 0
        while events := await self._store.journal(deferral_id, after=last, limit=READ):
            last = events[-1].sequence
        return last
