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
| `streaming`, `growing` | what stream events make of a task; a task that grows with each |
| `streams` | what stream events become for the caller of a deferred send |
| `asking` | the send as a stream; what Holdfast asks an agent about a task |
| `push` | push notification configurations, and the notifications themselves |
| `renaming`, `event_renaming` | where ids stand, and changing them; in a stream on its way |
| `listing` | lists of tasks: what is asked for, the page that two sources make |
| `failures` | errors in the caller's binding |
| `card`, `schemes` | the agent card seen through the proxy; which headers it makes secret |
| `signed_card` | the signature of a card, and what it signs |
"""

from proxy.core.a2a.call import Binding, Call, Operation, Version
from proxy.core.a2a.card import is_card, rewrite_card
from proxy.core.a2a.event_renaming import EventNames
from proxy.core.a2a.failures import (
    ErrorAnswer,
    error_answer,
    error_code,
    invalid_params,
    not_cancelable,
    passed_error,
    push_not_supported,
    says_not_found,
    task_has_ended,
    task_not_found,
)
from proxy.core.a2a.identity import PROVISIONAL_HINT, digest, is_provisional, new_context_id, provisional_id
from proxy.core.a2a.keeping import KeptTask, keep_answer, keep_task
from proxy.core.a2a.members import Members
from proxy.core.a2a.push import (
    PUSHES,
    PushConfig,
    bad_push_config,
    event_notification,
    notification_headers,
    push_config_answer,
    push_config_id,
    push_configs_answer,
    push_deleted_answer,
    read_push_config,
    take_push_config,
    task_notification,
)
from proxy.core.a2a.reading import MalformedBody, read
from proxy.core.a2a.renaming import rename_answer, rename_members, rename_tail, rename_task, with_context
from proxy.core.a2a.schemes import credential_headers, credential_headers_of
from proxy.core.a2a.shapes import TERMINAL, id_of
from proxy.core.a2a.signed_card import sign_card
from proxy.core.a2a.streaming import TaskSoFar, streamed_answer, tells_state
from proxy.core.a2a.streams import BEGINNING, RESTING, Narrator, Place, Update, read_place, update_item
from proxy.core.a2a.tasks import (
    continued_task,
    ended_task,
    failed_task,
    send_answer,
    submitted_answer,
    submitted_task,
    task_answer,
    task_id_of,
)

__all__ = [
    "BEGINNING",
    "PROVISIONAL_HINT",
    "PUSHES",
    "RESTING",
    "TERMINAL",
    "Binding",
    "Call",
    "ErrorAnswer",
    "EventNames",
    "KeptTask",
    "MalformedBody",
    "Members",
    "Narrator",
    "Operation",
    "Place",
    "PushConfig",
    "TaskSoFar",
    "Update",
    "Version",
    "bad_push_config",
    "continued_task",
    "credential_headers",
    "credential_headers_of",
    "digest",
    "ended_task",
    "error_answer",
    "error_code",
    "event_notification",
    "failed_task",
    "id_of",
    "invalid_params",
    "is_card",
    "is_provisional",
    "keep_answer",
    "keep_task",
    "new_context_id",
    "not_cancelable",
    "notification_headers",
    "passed_error",
    "provisional_id",
    "push_config_answer",
    "push_config_id",
    "push_configs_answer",
    "push_deleted_answer",
    "push_not_supported",
    "read",
    "read_place",
    "read_push_config",
    "rename_answer",
    "rename_members",
    "rename_tail",
    "rename_task",
    "rewrite_card",
    "says_not_found",
    "send_answer",
    "sign_card",
    "streamed_answer",
    "submitted_answer",
    "submitted_task",
    "take_push_config",
    "task_answer",
    "task_has_ended",
    "task_id_of",
    "task_not_found",
    "task_notification",
    "tells_state",
    "update_item",
    "with_context",
]
