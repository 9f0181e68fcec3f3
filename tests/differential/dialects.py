"""The four ways in which an operation is asked for: two versions, each over JSON-RPC and over REST.

Owns: how an operation looks as a request in each of them, which task an answer speaks of.
Knows nothing of: who is asked, what the answer should be.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from differential.wire import Fields, Said

JSON: Final = (b"Content-Type", b"application/json")
METHODS: Final = {
    "send": ("SendMessage", "message/send"),
    "stream": ("SendStreamingMessage", "message/stream"),
    "get": ("GetTask", "tasks/get"),
    "list": ("ListTasks", "tasks/list"),
    "cancel": ("CancelTask", "tasks/cancel"),
    "subscribe": ("SubscribeToTask", "tasks/resubscribe"),
    "push-set": ("CreateTaskPushNotificationConfig", "tasks/pushNotificationConfig/set"),
    "push-get": ("GetTaskPushNotificationConfig", "tasks/pushNotificationConfig/get"),
    "push-list": ("ListTaskPushNotificationConfigs", "tasks/pushNotificationConfig/list"),
    "push-delete": ("DeleteTaskPushNotificationConfig", "tasks/pushNotificationConfig/delete"),
    "card": ("GetExtendedAgentCard", "agent/getAuthenticatedExtendedCard"),
}
"""Operation: its JSON-RPC method in v1.0 and in v0.3."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """`binding`: `JSONRPC` or `HTTP+JSON`."""

    version: str
    binding: str

    @property
    def name(self) -> str:
        """As it stands in a test's name."""
        return f"v{self.version} {'rpc' if self.binding == 'JSONRPC' else 'rest'}"

    @property
    def new(self) -> bool:
        """It is v1.0."""
        return self.version == "1.0"

    def fields(self, *more: tuple[bytes, bytes]) -> Fields:
        """What a client of this dialect sends in its head."""
        version = ((b"A2A-Version", b"1.0"),) if self.new else ()
        return (JSON, (b"Accept", b"*/*"), *version, *more)

    # What is said

    def part(self, text: str) -> dict[str, Any]:
        """A part of a message."""
        return {"text": text} if self.new or self.binding != "JSONRPC" else {"kind": "text", "text": text}

    def message(self, text: str, message_id: str, **more: Any) -> dict[str, Any]:
        """A message of the user's."""
        parts = [self.part(text)]
        if self.new:
            return {"messageId": message_id, "role": "ROLE_USER", "parts": parts, **more}
        if self.binding == "JSONRPC":
            return {"kind": "message", "messageId": message_id, "role": "user", "parts": parts, **more}
        return {"messageId": message_id, "role": "ROLE_USER", "content": parts, **more}

    def send(self, text: str, message_id: str, *, operation: str = "send", now: bool = False, **more: Any) -> Said:
        """A message; `now`: do not wait for its end."""
        params: dict[str, Any] = {"message": self.message(text, message_id, **more)}
        if now:
            params["configuration"] = {"returnImmediately": True} if self.new else {"blocking": False}
        return self.ask(operation, params)

    def ask(self, operation: str, params: Mapping[str, Any] | None, *, rpc_id: Any = 1) -> Said:
        """An operation: over REST, `id`, `taskId` and `pushNotificationConfigId` of the parameters are in the path."""
        if self.binding == "JSONRPC":
            body: dict[str, Any] = {"jsonrpc": "2.0", "id": rpc_id, "method": METHODS[operation][0 if self.new else 1]}
            if params is not None:
                body["params"] = params
            return Said(fields=self.fields(), body=json.dumps(body).encode())
        return self._rest(operation, dict(params or {}))

    def _rest(self, operation: str, params: dict[str, Any]) -> Said:
        base = "" if self.new else "/v1"
        if operation in {"send", "stream"}:
            return Said(target=f"{base}/message:{operation}", fields=self.fields(), body=json.dumps(params).encode())
        if operation.startswith("push"):
            return self._rest_push(operation, f"{base}/tasks/{params.pop('taskId')}/pushNotificationConfigs", params)
        if operation == "card":
            return self.rest("GET", "/extendedAgentCard" if self.new else "/v1/card")
        task, length = params.pop("id", None), params.pop("historyLength", None)
        query = "&".join(f"{name}={value}" for name, value in params.items())
        query = f"?historyLength={length}" if length is not None else f"?{query}" if query else ""
        verb = f":{operation}" if operation in {"cancel", "subscribe"} else ""
        where = f"{base}/tasks" if task is None else f"{base}/tasks/{task}{verb}"
        return self.rest("POST" if verb else "GET", where + query)

    def _rest_push(self, operation: str, where: str, params: dict[str, Any]) -> Said:
        if operation == "push-set":
            return Said(target=where, fields=self.fields(), body=json.dumps(params).encode())
        if operation == "push-list":
            return self.rest("GET", where)
        return self.rest("DELETE" if operation == "push-delete" else "GET", f"{where}/{params['id']}")

    def rest(self, method: str, target: str) -> Said:
        """A request without a body."""
        return Said(
            method=method, target=target, fields=self.fields(), framing="length" if method == "POST" else "none"
        )

    # Push configurations are shaped differently everywhere

    def push(self, operation: str, task: str, config: str = "c1") -> Said:
        """An operation on a task's push configuration."""
        url, token = "http://127.0.0.1:9/hook", "word"  # nobody listens at the discard port
        full: dict[str, Any]
        short: dict[str, Any]
        plain = {"id": config, "url": url, "token": token}
        if self.new:
            full = {"taskId": task, **plain, "authentication": {"scheme": "Bearer", "credentials": "secret"}}
            short = {"taskId": task, "id": config}
            return self.ask(operation, {"push-set": full, "push-list": {"taskId": task}}.get(operation, short))
        if self.binding == "JSONRPC":
            full = {"taskId": task, "pushNotificationConfig": plain}
            short = {"id": task, "pushNotificationConfigId": config}
            return self.ask(operation, {"push-set": full, "push-list": {"id": task}}.get(operation, short))
        named = {"name": f"tasks/{task}/pushNotificationConfigs/{config}", "pushNotificationConfig": plain}
        full = {"taskId": task, "parent": f"tasks/{task}", "configId": config, "config": named}
        return self.ask(operation, {"push-set": full}.get(operation, {"taskId": task, "id": config}))


ALL: Final = tuple(Dialect(version, binding) for version in ("1.0", "0.3") for binding in ("JSONRPC", "HTTP+JSON"))


def task_of(body: bytes) -> str | None:
    """The id of the task that an answer speaks of first: JSON, or the first event of a stream."""
    text = body.decode("utf-8", "replace")
    if text.startswith(("data:", "event:", "id:", ":")):
        text = next((line[5:] for line in text.splitlines() if line.startswith("data:")), "")
    try:
        found: Any = json.loads(text)
    except ValueError:
        return None
    while isinstance(found, dict):
        if "status" in found and isinstance(found.get("id"), str):
            return str(found["id"])
        inner = next((found[name] for name in ("result", "task") if isinstance(found.get(name), dict)), None)
        if inner is None:
            return None
        found = inner
    return None
