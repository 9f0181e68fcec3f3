"""The four ways in which A2A is spoken over HTTP, as small as tests need them: both sides of each.

Owns: requests of clients, answers of agents, and what both say in neutral words.
Knows nothing of: proxies, sockets.
"""

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

TERMINAL = {"completed", "failed", "canceled", "rejected"}
OLD_METHODS = {"send": "message/send", "stream": "message/stream", "get": "tasks/get", "cancel": "tasks/cancel"}
NEW_METHODS = {
    "send": "SendMessage",
    "stream": "SendStreamingMessage",
    "get": "GetTask",
    "cancel": "CancelTask",
    "list": "ListTasks",
}
NOT_FOUND = (-32001, "TASK_NOT_FOUND", 404)
NOT_CANCELABLE = (-32002, "TASK_NOT_CANCELABLE", 400)
UNSUPPORTED = (-32004, "UNSUPPORTED_OPERATION", 400)


@dataclass(frozen=True)
class Request:
    """What a client sends."""

    method: str
    tail: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Said:
    """An answer in neutral words: a task, or an error's code (JSON-RPC's, or what stands for it in REST)."""

    status: int
    task: dict[str, Any]
    error: int | None
    text: str

    @property
    def id(self) -> str:
        return str(self.task["id"])

    @property
    def state(self) -> str:
        return neutral(self.task["status"]["state"])

    @property
    def history(self) -> list[str]:
        return [texts(message) for message in self.task.get("history", ())]


def neutral(state: str) -> str:
    """A state in the words of v0.3."""
    said = state.removeprefix("TASK_STATE_").lower().replace("_", "-")
    return "canceled" if said == "cancelled" else said


def texts(message: dict[str, Any]) -> str:
    """What a message says."""
    return "".join(str(part.get("text", "")) for part in message.get("parts", message.get("content", ())))


@dataclass(frozen=True)
class Dialect:
    """One binding in one version."""

    binding: str
    version: str

    def __str__(self) -> str:
        return f"{self.binding}-{self.version}"

    @property
    def old(self) -> bool:
        return self.version == "0.3"

    def state(self, state: str) -> str:
        """A neutral state as it is written."""
        if self.old and self.binding == "jsonrpc":
            return state
        if self.old and state == "canceled":
            return "TASK_STATE_CANCELLED"
        return "TASK_STATE_" + state.upper().replace("-", "_")

    # Clients

    def _request(self, operation: str, tail: str, method: str, params: dict[str, Any], body: Any = None) -> Request:
        headers = {"Content-Type": "application/json"} | ({} if self.old else {"A2A-Version": "1.0"})
        if self.binding == "jsonrpc":
            names = OLD_METHODS if self.old else NEW_METHODS
            said = {"jsonrpc": "2.0", "id": "call-7", "method": names[operation], "params": params}
            return Request("POST", "", headers, json.dumps(said).encode())
        content = b"" if body is None else json.dumps(body).encode()
        return Request(method, ("/v1" if self.old else "") + tail, headers, content)

    def send(self, text: str, message_id: str, *, stream: bool = False, **names: Any) -> Request:
        """A message; `taskId`, `contextId` and `referenceTaskIds` in `names`."""
        parts: list[dict[str, Any]] = [{"text": text}]
        message: dict[str, Any] = {"messageId": message_id, "role": "ROLE_USER", "parts": parts, **names}
        if self.old and self.binding == "jsonrpc":
            parts[0]["kind"] = "text"
            message |= {"kind": "message", "role": "user"}
        elif self.old:
            message["content"] = message.pop("parts")
        said: dict[str, Any] = {"message": message}
        operation = "stream" if stream else "send"
        return self._request(operation, f"/message:{operation}", "POST", said, said)

    def get(self, task_id: str, history: int | None = None) -> Request:
        wish = {} if history is None else {"historyLength": history}
        tail = f"/tasks/{quote(task_id, safe='')}" + ("" if history is None else f"?historyLength={history}")
        return self._request("get", tail, "GET", {"id": task_id, **wish})

    def cancel(self, task_id: str) -> Request:
        return self._request("cancel", f"/tasks/{quote(task_id, safe='')}:cancel", "POST", {"id": task_id}, {})

    def list(self, **wish: Any) -> Request:
        query = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in wish.items())
        return self._request("list", f"/tasks?{query}" if query else "/tasks", "GET", wish)

    def read(self, status: int, body: bytes) -> Said:
        """What came back."""
        said = json.loads(body)
        error = said.get("error")
        if self.binding == "jsonrpc":
            assert said["id"] == "call-7"
            result = said.get("result") or {}
            task = result.get("task", result)
            return Said(status, task, error["code"] if error else None, error["message"] if error else "")
        if error:
            reasons = {reason: code for code, reason, _ in (NOT_FOUND, NOT_CANCELABLE, UNSUPPORTED)}
            reason = error["details"][0]["reason"]
            return Said(status, {}, reasons.get(reason, status), error["message"])
        return Said(status, said.get("task", said), None, "")

    # Agents

    def heard(self, raw_path: str, body: bytes) -> tuple[str, dict[str, Any], Any]:
        """What a client asks an agent: (operation, parameters, JSON-RPC id)."""
        if self.binding == "jsonrpc":
            said = json.loads(body)
            names = {name: operation for operation, name in (OLD_METHODS if self.old else NEW_METHODS).items()}
            return names[said["method"]], said.get("params", {}), said["id"]
        path, _, query = raw_path.removeprefix("/v1").partition("?")
        if path.startswith("/message:"):
            return path.removeprefix("/message:"), json.loads(body), None
        pairs = dict(pair.split("=", 1) for pair in query.split("&") if pair)
        if path == "/tasks":
            return "list", pairs, None
        task, _, verb = path.removeprefix("/tasks/").partition(":")
        return verb or "get", {"id": task, **pairs}, None

    def task(self, task_id: str, context_id: str, state: str, said: str = "", history: Any = ()) -> dict[str, Any]:
        """A task as an agent writes it."""
        part: dict[str, Any] = {"text": said}
        if self.old and self.binding == "jsonrpc":
            part["kind"] = "text"
        content = "content" if self.old and self.binding == "rest" else "parts"
        role = "agent" if self.old and self.binding == "jsonrpc" else "ROLE_AGENT"
        message = {"messageId": f"says-{said}", "role": role, content: [part], "taskId": task_id}
        task = {"id": task_id, "contextId": context_id, "status": {"state": self.state(state), "message": message}}
        if self.old and self.binding == "jsonrpc":
            task["kind"] = "task"
            message["kind"] = "message"
        if history:
            task["history"] = list(history)
        return task

    def answer(self, task: dict[str, Any], rpc_id: Any, *, sent: bool) -> dict[str, Any]:
        """The whole answer that holds a task."""
        result = task if not sent or (self.old and self.binding == "jsonrpc") else {"task": task}
        return {"jsonrpc": "2.0", "id": rpc_id, "result": result} if self.binding == "jsonrpc" else result

    def error(self, kind: tuple[int, str, int], rpc_id: Any, task_id: str) -> tuple[int, dict[str, Any]]:
        """An agent's error: (status, body). It repeats the id that it was asked for, as servers do."""
        code, reason, status = kind
        text = f"Task {task_id} says {reason}"
        info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "a2a-protocol.org"}
        details = [{**info, "metadata": {"taskId": task_id}}]
        if self.binding == "jsonrpc":
            error = {"code": code, "message": text, "data": details}
            return 200, {"jsonrpc": "2.0", "id": rpc_id, "error": error}
        return status, {"error": {"code": status, "status": "X", "message": text, "details": details}}


JSONRPC, JSONRPC_OLD = Dialect("jsonrpc", "1.0"), Dialect("jsonrpc", "0.3")
REST, REST_OLD = Dialect("rest", "1.0"), Dialect("rest", "0.3")
ALL = (JSONRPC, JSONRPC_OLD, REST, REST_OLD)
NEW = (JSONRPC, REST)
