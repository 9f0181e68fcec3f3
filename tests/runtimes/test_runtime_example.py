"""The documented examples do what the page says: a whole runtime in one file, a container script, a signature check."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.clock import SystemClock
from proxy.runtimes import signing

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "runtimes.md"

RIG = '''"""What the conformance suite needs to exercise the documented runtime."""


def section(*command):
    return {"type": "pidfile", "command": list(command), "watch": 0.02, "start_grace": 0}


def lasting_spec():
    return section("sleep", "1000")


def ending_spec(code):
    return section("sh", "-c", f"exit {code}")
'''

PLUGIN = '''"""Puts a runtime that lies elsewhere into the package, for one run of the suite."""

import os

from proxy import runtimes

runtimes.__path__.append(os.environ["RUNTIME_RIGS"] + "/package")
'''


def example(opening: str, language: str = "python") -> str:
    """Return the code block of the page that opens like this."""
    blocks = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    [found] = [block for block in blocks if block.startswith(opening)]
    return str(found)


@pytest.mark.timeout(120)
def test_the_documented_runtime_passes_the_conformance_suite(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "pidfile.py").write_text(example('"""Owns workspaces that are background processes'))
    (tmp_path / "pidfile.py").write_text(RIG)
    (tmp_path / "elsewhere.py").write_text(PLUGIN)
    words = [sys.executable, "-m", "pytest", "-q", "-p", "elsewhere", "-p", "no:cacheprovider", "-k", "pidfile"]
    done = subprocess.run(  # noqa: S603 - our own words
        [*words, str(ROOT / "tests/runtimes/test_runtime_conformance.py")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "RUNTIME_RIGS": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    [passed] = re.findall(r"(\d+) passed", done.stdout)
    assert int(passed) >= 16, done.stdout


@pytest.mark.parametrize("secret", ["whsec_" + "a2V5" * 8, "a plain secret, long enough"])
def test_the_documented_check_of_a_signature_takes_ours_and_no_other(secret: str) -> None:
    names: dict[str, object] = {}
    exec(example("import base64, hashlib, hmac, time"), names)  # noqa: S102 - it is the documentation's own code
    is_ours = names["is_ours"]
    assert callable(is_ours)
    now, body = int(SystemClock()().timestamp()), b'{"action":"stop"}'

    def headers(at: int, key: bytes) -> dict[str, str]:
        return {
            "webhook-id": "writer:7:stop",
            "webhook-timestamp": str(at),
            "webhook-signature": signing.sign(key, "writer:7:stop", at, body),
        }

    key = signing.key_of(secret)
    assert is_ours(secret, headers(now, key), body)
    assert not is_ours(secret, headers(now, key), body + b" ")
    assert not is_ours(secret, headers(now - 600, key), body)
    assert not is_ours(secret, headers(now, b"another key, not ours"), body)
    assert not is_ours(secret, {**headers(now, key), "webhook-id": "writer:8:stop"}, body)


FAKE_DOCKER = """#!/bin/sh
# As much of docker as the documented script uses: one file per container, holding its state.
case "$1 $2" in
"container inspect")
    name=$(eval echo "\\${$#}")
    test -e "$CONTAINERS/$name" || { echo "no such container" >&2; exit 1; }
    cat "$CONTAINERS/$name"
    ;;
"version ") test -d "$CONTAINERS" ;;
"run "*) echo "running 0" > "$CONTAINERS/holdfast-$HOLDFAST_WORKSPACE_ID" ;;
"rm "*) rm "$CONTAINERS/$3" ;;
"stop "*) echo "exited 143" > "$CONTAINERS/$4" ;;
*) exit 125 ;;
esac
"""


def test_the_documented_container_script_says_what_the_table_says(tmp_path: Path) -> None:
    script, docker, containers = tmp_path / "writer-container", tmp_path / "docker", tmp_path / "containers"
    script.write_text(example("#!/bin/sh\n# writer-container", "sh"))
    docker.write_text(FAKE_DOCKER)
    docker.chmod(0o755)
    containers.mkdir()

    def run(action: str, **more: str) -> tuple[int, str]:
        env = {
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "CONTAINERS": str(containers),
            "IMAGE": "x",
            "HOLDFAST_WORKSPACE_ID": "writer",
            "HOLDFAST_STOP_GRACE": "2.5",
            "HOLDFAST_ACTION": action,
            **more,
        }
        done = subprocess.run(  # noqa: S603 - the documentation's own script
            ["/bin/sh", str(script)], env=env, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout

    assert run("inspect")[0] == 3
    assert run("inspect", CONTAINERS="/nonexistent")[0] == 4, "the daemon is away"
    assert run("stop")[0] == 0
    assert run("start")[0] == 0
    assert run("inspect")[0] == 0
    assert run("start")[0] == 0, "a start is idempotent"
    assert run("stop")[0] == 0
    assert run("inspect") == (3, '{"exit_code": 143}\n')
