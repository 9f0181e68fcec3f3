"""An agent made of the standard library alone: a process that boots fast, and does what tests of processes need.

`python -I -S small_agent.py --port N --tell FIFO [...]`. It tells everything that happens to it as one JSON line on a
named pipe, and waits for one byte of another named pipe wherever a test wants to decide when it goes on:

    {"booted": pid, "incarnation", "config"}    it was started; with --boot FIFO it listens once it got its byte
    {"broken": pid}                             it was started while the file --broken exists, and ended with code 3
    {"stopping": pid}                           SIGTERM came (only with --stop FIFO), and it ends once it got its byte
    {"got": message id, "redelivery", "pid"}    a message came; with the text "wait" it is answered after a byte of --go
    {"busy": message id}                        a message came while the file --busy exists, and was answered by 503

`POST /close` makes it deaf: it runs on and listens no more.
"""

import argparse
import json
import os
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


def tell(**said: Any) -> None:
    """One line, in one write, so that two lives of an agent do not mix theirs."""
    descriptor = os.open(OPTIONS.tell, os.O_WRONLY)
    os.write(descriptor, json.dumps(said).encode() + b"\n")
    os.close(descriptor)


def await_byte(pipe: str) -> None:
    """Wait for one byte of a named pipe, which is what its other side gives for one step."""
    descriptor = os.open(pipe, os.O_RDONLY)
    os.read(descriptor, 1)
    os.close(descriptor)


class Door(BaseHTTPRequestHandler):
    """Answers."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """The agent card, for readiness; anything else is unknown."""
        if self.path == "/.well-known/agent-card.json":
            self.answer(200, {"name": "small", "skills": [], "capabilities": {}})
        else:
            self.answer(404, {})

    def do_POST(self) -> None:
        """A SendMessage, or the wish that it closes its door."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/close":
            self.close_connection = True
            SERVER.shutdown()
            SERVER.server_close()
            self.answer(200, {})
            return
        call = json.loads(body)
        if call["method"] == "ListTasks":
            error = {"code": -32601, "message": "Method not found"}
            self.answer(200, {"jsonrpc": "2.0", "id": call["id"], "error": error})
            return
        message = call["params"]["message"]
        if OPTIONS.busy and Path(OPTIONS.busy).exists():
            tell(busy=message["messageId"])
            self.answer(503, {"error": "busy"})
            return
        tell(got=message["messageId"], redelivery=self.headers["Holdfast-Redelivery"], pid=os.getpid())
        if message["parts"][0]["text"] == "wait":
            await_byte(OPTIONS.go)
        task = {
            "id": f"up-{message['messageId']}",
            "contextId": message.get("contextId", "context"),
            "status": {"state": "TASK_STATE_COMPLETED"},
            "artifacts": [{"artifactId": "a", "parts": [{"text": f"did {message['messageId']}"}]}],
        }
        self.answer(200, {"jsonrpc": "2.0", "id": call["id"], "result": {"task": task}})

    def answer(self, status: int, said: Any) -> None:
        """One JSON answer."""
        body = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class Listening(ThreadingHTTPServer):
    """A listener with room for every caller of a test at once."""

    request_queue_size = 128
    daemon_threads = True
    block_on_close = False


def stop(*_: Any) -> None:
    """SIGTERM came."""
    tell(stopping=os.getpid())
    await_byte(OPTIONS.stop)
    os._exit(0)


parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int, required=True)
for option in ("tell", "boot", "go", "stop", "broken", "busy"):
    parser.add_argument(f"--{option}")
OPTIONS = parser.parse_args()

if __name__ == "__main__":
    if OPTIONS.broken and Path(OPTIONS.broken).exists():
        tell(broken=os.getpid())
        sys.exit(3)
    if OPTIONS.stop:
        signal.signal(signal.SIGTERM, stop)
    config = json.loads(Path(os.environ["HOLDFAST_CONFIG_PATH"]).read_bytes())
    tell(booted=os.getpid(), incarnation=int(os.environ["HOLDFAST_INCARNATION"]), config=config)
    if OPTIONS.boot:
        await_byte(OPTIONS.boot)
    SERVER = Listening(("127.0.0.1", OPTIONS.port), Door)
    threading.Thread(target=SERVER.serve_forever, daemon=True).start()
    while True:
        signal.pause()
