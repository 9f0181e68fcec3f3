"""Owns what a proxy knows of the A2A protocol: what a request says, and how to answer it in kind.

Knows nothing of sockets, stores, liveness and time. Versions 0.3 and 1.0, over JSON-RPC and REST (HTTP+JSON).

| file | owns |
| --- | --- |
| `call` | the words: binding, version, operation, one call |
| `operations` | the table of operations: every name and path |
| `reading` | request -> call |
| `identity` | digests, provisional task ids |
| `members` | JSON objects whose untouched values keep their bytes |
| `shapes`, `protojson03` | the shapes of tasks and the ways between them |
| `tasks`, `keeping` | tasks we answer with; what is kept of an agent's answer |
| `streaming` | what stream events make of a task |
| `renaming` | where ids stand, and changing them |
| `failures` | errors in the caller's binding |
| `card`, `schemes` | the agent card seen through the proxy; which headers it makes secret |
| `signed_card` | the signature of a card, and what it signs |
"""

from proxy.core.a2a.call import Binding, Call, Operation, Version
from proxy.core.a2a.card import is_card, rewrite_card
from proxy.core.a2a.failures import ErrorAnswer, error_answer, not_cancelable, task_not_found
from proxy.core.a2a.identity import PROVISIONAL_HINT, digest, is_provisional, new_context_id, provisional_id
from proxy.core.a2a.keeping import KeptTask, keep_answer, keep_task
from proxy.core.a2a.members import Members
from proxy.core.a2a.reading import MalformedBody, read
from proxy.core.a2a.renaming import rename_answer, rename_tail, rename_task, with_context
from proxy.core.a2a.schemes import credential_headers, credential_headers_of
from proxy.core.a2a.signed_card import sign_card
from proxy.core.a2a.streaming import streamed_answer, told
from proxy.core.a2a.tasks import failed_task, send_answer, submitted_answer, submitted_task, task_answer

__all__ = [
    "PROVISIONAL_HINT",
    "Binding",
    "Call",
    "ErrorAnswer",
    "KeptTask",
    "MalformedBody",
    "Members",
    "Operation",
    "Version",
    "credential_headers",
    "credential_headers_of",
    "digest",
    "error_answer",
    "failed_task",
    "is_card",
    "is_provisional",
    "keep_answer",
    "keep_task",
    "new_context_id",
    "not_cancelable",
    "provisional_id",
    "read",
    "rename_answer",
    "rename_tail",
    "rename_task",
    "rewrite_card",
    "send_answer",
    "sign_card",
    "streamed_answer",
    "submitted_answer",
    "submitted_task",
    "task_answer",
    "task_not_found",
    "told",
    "with_context",
]
