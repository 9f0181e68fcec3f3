"""What the conformance suite needs to exercise the `webhook` runtime: a receiver on a real socket, in a thread.

It checks each signature by its own means, remembers the ids of starts and stops, and keeps workloads that are words.
"""

import base64
import functools
import hashlib
import hmac
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

SECRET = "a secret of the rig, long enough"


class Receiver(BaseHTTPRequestHandler):
    """Starts, stops and looks at workloads; the path says what becomes of one: `/lasts` or `/ends/CODE`."""

    protocol_version = "HTTP/1.1"
    workloads: ClassVar[dict[str, tuple[int, int | None]]] = {}
    known: ClassVar[set[str]] = set()

    def do_POST(self) -> None:
        """One request."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        signed = f"{self.headers['webhook-id']}.{self.headers['webhook-timestamp']}.".encode() + body
        expected = base64.b64encode(hmac.new(SECRET.encode(), signed, hashlib.sha256).digest()).decode()
        if self.headers["webhook-signature"] != f"v1,{expected}":
            self.answer(401, {"error": "bad signature"})
            return
        said = json.loads(body)
        if said["action"] == "inspect":
            self.answer(200, self.state(said))
            return
        if self.headers["webhook-id"] not in self.known:
            self.known.add(self.headers["webhook-id"])
            getattr(self, said["action"])(said)
        self.answer(200, {})

    def start(self, said: dict[str, Any]) -> None:
        """Begin."""
        code = int(self.path.rpartition("/")[2]) if self.path.startswith("/ends/") else None
        self.workloads[said["workspace"]] = (said["generation"], code)

    def stop(self, said: dict[str, Any]) -> None:
        """End."""
        generation, _ = self.workloads.get(said["workspace"], (0, None))
        if generation < said["before_generation"]:
            self.workloads.pop(said["workspace"], None)

    def state(self, said: dict[str, Any]) -> dict[str, Any]:
        """Say how it is."""
        if said["workspace"] not in self.workloads:
            return {"state": "stopped"}
        _, code = self.workloads[said["workspace"]]
        return {"state": "running"} if code is None else {"state": "gone", "exit_code": code}

    def answer(self, status: int, said: Any) -> None:
        """One JSON answer."""
        body = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@functools.cache
def _url() -> str:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def spec(path: str) -> dict[str, Any]:
    """Return a section whose receiver does what this path says."""
    Receiver.known.clear()  # the next test begins its generations anew
    return {"type": "webhook", "url": _url() + path, "secret": SECRET, "watch": 0.02, "start_grace": 0}


def lasting_spec() -> dict[str, Any]:
    """Return a section whose workload runs until it is stopped."""
    return spec("/lasts")


def ending_spec(code: int) -> dict[str, Any]:
    """Return a section whose workload ends by itself, with this exit code."""
    return spec(f"/ends/{code}")
