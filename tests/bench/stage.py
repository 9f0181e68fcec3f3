"""What is measured, as processes on one machine: the upstream, and the proxies in front of it.

Owns: starting and ending them, their configuration, on which processor each of them runs.
Knows nothing of: load, numbers.

Where there are two processors, the proxies have one for themselves and share it with nobody who is measured at the
same time; upstream and load have the other. nginx, HAProxy and Caddy are told to use one processor: a Python process
has no more.
"""

import contextlib
import http.client
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from bench.load import Target
from bench.measuring import ROOT, UnfitError, free_port, search_path

PATIENCE = 30.0
ADMIN_TOKEN = "hf_" + "b" * 43
WORKSPACE = "bench"
DIRECT, PLAIN, NGINX, HAPROXY, CADDY, HOLDFAST = "direct", "plain", "nginx", "haproxy", "caddy", "holdfast"
PROXIES = (PLAIN, NGINX, HAPROXY, CADDY, HOLDFAST)
SHOWN = {
    DIRECT: "no proxy",
    PLAIN: "plain aiohttp pass-through",
    NGINX: "nginx",
    HAPROXY: "HAProxy",
    CADDY: "Caddy",
    HOLDFAST: "Holdfast",
}


@dataclass(frozen=True, slots=True)
class Subject:
    """What is asked: a name, where, and the process whose work it is (None: no proxy)."""

    name: str
    target: Target
    pid: int | None


class Stage:
    """The processes of one run; a context that ends them all."""

    def __init__(self, *, pin: bool, most_connections: int, streams: bool = False) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="holdfast-bench-"))
        self._most = most_connections
        self._buffering = "off" if streams else "on"  # nginx's: events must not be held back
        self._processes: list[subprocess.Popen[bytes]] = []
        self._upstream = 0
        cores = sorted(os.sched_getaffinity(0))
        self._all = set(cores)
        self._for_proxies, self._for_load = ({cores[0]}, set(cores[1:])) if pin and len(cores) > 1 else (self._all,) * 2

    def __enter__(self) -> Self:
        os.sched_setaffinity(0, self._for_load)
        self._upstream = free_port()
        self._start([sys.executable, "-m", "bench.upstream", str(self._upstream)], self._upstream, self._for_load)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        os.sched_setaffinity(0, self._all)
        shutil.rmtree(self._folder, ignore_errors=True)

    @staticmethod
    def missing() -> list[str]:
        """Which of the proxies are not installed here."""
        return [name for name in (NGINX, HAPROXY, CADDY) if shutil.which(name, path=search_path()) is None]

    def direct(self) -> Subject:
        """The upstream itself."""
        return Subject(DIRECT, Target(port=self._upstream), None)

    def start(self, name: str) -> Subject:
        """Start a proxy in front of the upstream."""
        makers: Mapping[str, Callable[[int], Subject]] = {
            PLAIN: self._plain,
            NGINX: self._nginx,
            HAPROXY: self._haproxy,
            CADDY: self._caddy,
            HOLDFAST: self._holdfast,
        }
        return makers[name](free_port())

    def end(self, subject: Subject) -> None:
        """End a proxy, and wait until it is gone."""
        for process in self._processes:
            if process.pid == subject.pid:
                process.terminate()
                process.wait(PATIENCE)
                self._processes.remove(process)
                return

    # The proxies

    def _plain(self, port: int) -> Subject:
        words = [sys.executable, "-m", "bench.plain", str(port), f"http://127.0.0.1:{self._upstream}"]
        return Subject(PLAIN, Target(port=port), self._start(words, port, self._for_proxies))

    def _nginx(self, port: int) -> Subject:
        folder = self._folder / f"nginx-{port}"
        folder.mkdir()
        temporary = "\n".join(
            f"  {kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        said = f"""
daemon off;
{"user root;" if os.geteuid() == 0 else ""}
worker_processes 1;
worker_rlimit_nofile {3 * self._most};
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections {3 * self._most}; }}
http {{
  access_log off;
  keepalive_requests 100000000;
{temporary}
  upstream agent {{ server 127.0.0.1:{self._upstream}; keepalive 256; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://agent;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering {self._buffering};
      proxy_read_timeout 1h;
    }}
  }}
}}
"""
        (folder / "nginx.conf").write_text(said, encoding="ascii")
        words = [_found(NGINX), "-e", f"{folder}/error.log", "-c", f"{folder}/nginx.conf"]
        return Subject(NGINX, Target(port=port), self._start(words, port, self._for_proxies))

    def _haproxy(self, port: int) -> Subject:
        said = f"""
global
  nbthread 1
  maxconn {self._most}
defaults
  mode http
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  http-reuse always
frontend front
  bind 127.0.0.1:{port} backlog 4096
  default_backend back
backend back
  server agent 127.0.0.1:{self._upstream}
"""
        path = self._folder / f"haproxy-{port}.cfg"
        path.write_text(said, encoding="ascii")
        words = [_found(HAPROXY), "-db", "-f", str(path)]
        return Subject(HAPROXY, Target(port=port), self._start(words, port, self._for_proxies))

    def _caddy(self, port: int) -> Subject:
        said = f"""
{{
  admin off
  auto_https off
  log {{
    level ERROR
  }}
}}
http://127.0.0.1:{port} {{
  bind 127.0.0.1
  reverse_proxy 127.0.0.1:{self._upstream} {{
    flush_interval -1
    transport http {{
      keepalive_idle_conns_per_host 256
    }}
  }}
}}
"""
        path = self._folder / f"Caddyfile-{port}"
        path.write_text(said, encoding="ascii")
        words = [_found(CADDY), "run", "--adapter", "caddyfile", "--config", str(path)]
        home = {"GOMAXPROCS": "1", "HOME": str(self._folder), "XDG_CONFIG_HOME": str(self._folder)}
        return Subject(CADDY, Target(port=port), self._start(words, port, self._for_proxies, home))

    def _holdfast(self, port: int) -> Subject:
        settings = {
            "ADMIN_TOKEN": ADMIN_TOKEN,
            "UPSTREAM_ALLOW": "127.0.0.0/8",
            "UPSTREAM_MAX_CONNECTIONS": str(self._most),
            "DEFAULTS_HOLD_SECONDS": "0",
            "LOG_LEVEL": "warning",
        }
        words = [sys.executable, "-m", "proxy", "serve", "--port", str(port)]
        words += ["--data", str(self._folder / f"holdfast-{port}.db")]
        environment = {f"HOLDFAST_{name}": value for name, value in settings.items()}
        pid = self._start(words, port, self._for_proxies, environment)
        _ask(port, "PUT", f"/workspaces/{WORKSPACE}", {"url": f"http://127.0.0.1:{self._upstream}"})
        token = _ask(port, "POST", "/tokens", {"kind": "client", "name": "bench"})["token"]
        return Subject(HOLDFAST, Target(port=port, token=str(token)), pid)

    # Processes

    def _start(
        self, words: Sequence[str], port: int, cores: set[int], environment: Mapping[str, str] | None = None
    ) -> int:
        """Start a process on these processors, and wait until it listens."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}
        with _bound_to(cores), (self._folder / f"{port}.log").open("wb") as log:
            process = subprocess.Popen(  # noqa: S603 - our own words
                list(words),
                cwd=ROOT,
                env={**clean, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        self._processes.append(process)
        until = time.perf_counter() + PATIENCE
        while time.perf_counter() < until and process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0):
                return process.pid
            time.sleep(0.02)
        said = (self._folder / f"{port}.log").read_text(encoding="utf-8", errors="replace")
        raise UnfitError(f"it did not come up: {' '.join(words)}\n{said}")

    def said(self) -> str:
        """What the processes wrote to their standard errors, where they wrote anything."""
        logs = (path.read_text(encoding="utf-8", errors="replace") for path in sorted(self._folder.glob("*.log")))
        return "\n".join(text for text in logs if text)


@contextlib.contextmanager
def _bound_to(cores: set[int]) -> Iterator[None]:
    """Start what is started here on these processors."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _found(name: str) -> str:
    path = shutil.which(name, path=search_path())
    if path is None:
        raise UnfitError(f"{name} is not installed")
    return path


def _ask(port: int, method: str, path: str, body: Mapping[str, Any]) -> Any:
    """One administrative request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        headers = {"Authorization": f"Bearer {ADMIN_TOKEN}", "Content-Type": "application/json"}
        connection.request(method, path, json.dumps(body), headers)
        got = connection.getresponse()
        said = got.read()
        if got.status not in {200, 201}:
            raise UnfitError(f"Holdfast answered {got.status} to {method} {path}: {said[:200]!r}")
        return json.loads(said)
    finally:
        connection.close()


def allow_files(wanted: int) -> None:
    """Let this process and those that it starts hold so many files and sockets.

    Raises:
        UnfitError: the system does not allow it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise UnfitError(f"it needs {wanted} open files and the system allows {hard} (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
