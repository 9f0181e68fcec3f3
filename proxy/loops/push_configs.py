"""Who wants to be notified of a deferred task: configurations taken out of sends, checked, sealed and opened.

Owns: which of them are taken, what a receiver knows.
Knows nothing of: requests about them (`loops.push_requests`), what is notified, and when (`loops.notifying`).

A configuration never reaches the agent: it would notify the caller under a task id that the caller was never given. It
holds what is nobody else's business (a token, credentials, perhaps a secret in the URL), so all of it is sealed.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

import msgspec

from proxy.core import a2a
from proxy.core.addresses import AddressPolicy, UnsafeUrl, check_url
from proxy.core.deferral import Deferral, StoredPush
from proxy.core.errors import CallerError
from proxy.store import Store, StoreFailure
from proxy.store.pushes import Progress, Push
from proxy.store.vault import Vault


class PushConfigs:
    """Keeps configurations; a task has at most `most`. `added` hears of every deferral that got one.

    `look_up` says why the addresses of a URL's name must not be called; None where they may.
    """

    def __init__(
        self,
        *,
        store: Store,
        vault: Vault,
        addresses: AddressPolicy,
        look_up: Callable[[str], Awaitable[str | None]],
        most: int,
    ) -> None:
        self._store = store
        self._vault = vault
        self._addresses = addresses
        self._look_up = look_up
        self._most = most
        self.added: Callable[[str, str], None] = lambda *_: None

    async def taken(self, deferral: Deferral, call: a2a.Call) -> Deferral:
        """A deferral about to be stored, its configuration beside it and no longer in its body.

        Raises:
            CallerError: 400, the configuration cannot be used; nothing must be stored.
        """
        body, config = a2a.take_push_config(call, deferral.request.body)
        if config is None or deferral.task_id is None or not a2a.is_provisional(deferral.task_id):
            return deferral  # a task that its agent began: it notifies under that task's own id
        await self._check(config)
        config = replace(config, id=config.id or deferral.task_id)
        request = replace(deferral.request, body=body)
        return replace(deferral, request=request, push=self._sealed(deferral, config, call.version))

    async def carried_on(self, deferral: Deferral) -> None:
        """A message to a task was put away: the receivers that its earlier messages have get to know of it.

        Where the store fails they do so at the next start.
        """
        with suppress(StoreFailure):
            await self._carry_on(deferral)

    async def _carry_on(self, deferral: Deferral) -> None:
        for push in await self._store.pushes_of_task(deferral.workspace_id, deferral.task_id or ""):
            self.added(push.deferral_id, push.stored.id)

    def opened(self, push: Push, deferral: Deferral) -> a2a.PushConfig:
        """What is behind the seal of a receiver of a deferral's task, whichever message to it the receiver follows.

        Raises:
            VaultFailure: no known key opens it.
        """
        plain = self._vault.open(push.stored.sealed, owner=_owner(deferral, push.stored.id))
        return msgspec.json.decode(plain, type=a2a.PushConfig)

    async def keep(self, deferral: Deferral, config: a2a.PushConfig, version: a2a.Version, known: Progress) -> None:
        """Keep a configuration that has an id, whose receiver knows what `known` says.

        Raises:
            CallerError: 400, it cannot be used, or the task has too many; nothing was stored.
        """
        await self._check(config)
        stored = self._sealed(deferral, config, version)
        if not await self._store.put_push(deferral.id, stored, known, most=self._most):
            raise a2a.bad_push_config(f"is one too many: a task has at most {self._most}")
        self.added(deferral.id, config.id)

    async def _check(self, config: a2a.PushConfig) -> None:
        """Refuse what must not be called; a name that does not resolve now may do so later, and is looked up then."""
        try:
            check_url(config.url, self._addresses)
            problem = await self._look_up(config.url)
        except UnsafeUrl as unsafe:
            problem = str(unsafe)
        if problem is not None:
            raise unsafe_receiver(problem)

    def _sealed(self, deferral: Deferral, config: a2a.PushConfig, version: a2a.Version) -> StoredPush:
        plain = msgspec.json.encode(config)
        sealed = self._vault.seal(plain, owner=_owner(deferral, config.id))
        return StoredPush(id=config.id, protocol=version.value, sealed=sealed)


def unsafe_receiver(problem: str) -> CallerError:
    """The refusal of a URL that must not be called."""
    return a2a.bad_push_config(f"names a receiver that must not be called: {problem}")


def told_mark(state: str, task_json: bytes) -> str:
    """What a receiver knows that was told a whole task."""
    return f"{state} {a2a.digest(task_json)[:16]}"


def state_told(told: str) -> str:
    """The state of the task that a receiver knows; empty where it knows none."""
    return told.partition(" ")[0]


def _owner(deferral: Deferral, push_id: str) -> str:
    return f"{deferral.task_id}/{push_id}"
