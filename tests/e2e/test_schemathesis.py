"""Schemathesis reads /openapi.json and asks a real proxy everything it can think of: no 5xx, nothing undocumented.

What it makes up follows from a seed, so that a run can be repeated. The short run is part of every test run; the long
one is more of the same. Excluded are the checks that the API breaks on purpose:

* positive_data_acceptance: rules between parameters (a generation needs its workspace) cannot be told in OpenAPI;
* unsupported_method, allow_header_conformance: the data path passes every method on, and `/queue/drop-stale` is also
  the path of a receipt that nobody has;
* not_a_server_error, for the data path only: 502, 503 and 504 are what it says of agents.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import web
from e2e.serving import ADMIN_TOKEN, Serving, free_port

pytestmark = pytest.mark.asyncio(loop_scope="module")
SEED = 20_26
OWN_WORKSPACE = {
    "put_workspace": "changing",
    "configure": "changing",
    "restart": "changing",
    "announce_restart": "changing",
    "beat": "changing",
    "remove_workspace": "doomed",
    "pause": "parked",
    "resume": "parked",
    "hibernate": "parked",
}
"""What changes a workspace is tried on one of its own, so that the others stay what they are."""
BROKEN_ON_PURPOSE = "positive_data_acceptance,unsupported_method,allow_header_conformance"


@dataclass
class Ground:
    """A proxy with something of everything: an agent that answers, a receipt, a token."""

    proxy: Serving
    folder: Path
    tokens: dict[str, str | None]
    receipt: str

    def config(self) -> Path:
        """Where the made-up requests should go, most of them: to what is there."""
        path = self.folder / "schemathesis.toml"
        lines = [
            "[parameters]",
            '"path.id" = "here"',
            f'"path.deferral_id" = "{self.receipt}"',
            f'"path.queue_id" = "{self.receipt}"',
        ]
        for operation, workspace in OWN_WORKSPACE.items():
            lines += [
                "[[operations]]",
                f'include-operation-id = "{operation}"',
                f'parameters = {{ "path.id" = "{workspace}" }}',
            ]
        lines += [
            "[[operations]]",
            'include-operation-id = ["show_receipt", "show_deferral"]',
            "checks.ignored_auth.enabled = false",  # a receipt is 404 to whoever may not know of it
        ]
        path.write_text("\n".join(lines), encoding="utf-8")
        return path

    async def run(self, who: str, *words: str) -> None:
        """Let schemathesis ask; the test fails with what it complains of."""
        token = self.tokens[who]
        headers = ["-H", f"Authorization: Bearer {token}", "-H", f"Holdfast-Token: {token}"] if token else []
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(self.config()), "run"),
            *(f"{self.proxy.url}/openapi.json", "--seed", str(SEED), "--generation-database", "none", "--no-color"),
            *("--request-timeout", "10", "--suppress-health-check", "all", "--warnings", "off", *headers, *words),
            cwd=self.folder,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()
        if process.returncode != 0:
            pytest.fail(f"as {who}:\n{said.decode()}", pytrace=False)


async def answer(request: web.Request) -> web.Response:
    """An agent that is content with anything."""
    await request.read()
    return web.json_response({"ok": True})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ground(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ground]:
    application = web.Application()
    application.router.add_route("*", "/{tail:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    folder = tmp_path_factory.mktemp("schemathesis")
    proxy = Serving(folder)
    await proxy.start()
    here = await proxy.enroll("here", url=url)
    for name in ("changing", "doomed", "parked"):
        await proxy.enroll(name, url=url)
    await proxy.enroll("away", url=f"http://127.0.0.1:{free_port()}", unmanaged_away="defer")
    client = await proxy.client()
    deferred = await proxy.send("away", token=client)
    assert deferred.status == 202, deferred.body
    tokens = {"admin": ADMIN_TOKEN, "workspace": here, "client": client, "nobody": None}
    yield Ground(proxy, folder, tokens, deferred.headers["Holdfast-Receipt"])
    await proxy.kill()
    await runner.cleanup()


def faults(proxy: Serving) -> list[str]:
    """What the proxy says went wrong inside."""
    return [json.dumps(event) for event in proxy.events if event["level"] == "error"] + proxy.stray


DOORS = ("--exclude-tag", "data path", "--exclude-checks", BROKEN_ON_PURPOSE)
DATA_PATH = ("--include-tag", "data path", "--exclude-checks", f"{BROKEN_ON_PURPOSE},not_a_server_error")


@pytest.mark.timeout(180)
async def test_a_short_run_finds_no_undocumented_answer(ground: Ground) -> None:
    examples = {"admin": "2", "workspace": "1", "nobody": "1"}
    await asyncio.gather(*(ground.run(who, *DOORS, "--phases", "fuzzing", "-n", n) for who, n in examples.items()))
    assert not faults(ground.proxy)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("who", ["admin", "workspace", "client", "nobody"])
async def test_a_long_run_finds_no_undocumented_answer(ground: Ground, who: str) -> None:
    await ground.run(who, *DOORS, "--phases", "coverage,fuzzing", "-n", "25")
    await ground.run(who, *DATA_PATH, "--phases", "coverage,fuzzing", "-n", "25")
    assert not faults(ground.proxy)
