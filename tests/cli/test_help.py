"""Every command explains itself: it has an example, every example is one that runs, and the page names it."""

import re
import shlex
from collections.abc import Iterator

import click
import pytest
from cli.commandline import ROOT, run

from proxy.cli import main
from proxy.cli.exit_codes import Exit

PAGE = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")


def commands(group: click.Group, *path: str) -> Iterator[tuple[str, ...]]:
    """Every command's words, groups before what is in them."""
    ctx = click.Context(group)
    for name in group.list_commands(ctx):
        found = group.get_command(ctx, name)
        assert found is not None
        yield (*path, name)
        if isinstance(found, click.Group):
            yield from commands(found, *path, name)


ALL = list(commands(main))


def examples_of(words: tuple[str, ...]) -> list[str]:
    """The lines below "Examples:" in a command's help, continued ones joined."""
    _, _, below = run(*words, "--help").out.partition("Examples:\n")
    return [line.strip() for line in re.sub(r"\\\n\s+", "", below).splitlines() if line.strip()]


def test_there_are_the_commands_of_an_administrator() -> None:
    assert {" ".join(words) for words in ALL} >= {
        "serve",
        "healthcheck",
        "demo",
        "config check",
        "config show",
        "status",
        "workspaces list",
        "workspaces show",
        "workspaces put",
        "workspaces remove",
        "workspaces pause",
        "workspaces resume",
        "workspaces hibernate",
        "restart",
        "queue list",
        "queue show",
        "queue redrive",
        "queue cancel",
        "queue drop-stale",
        "decisions",
        "events",
        "token create",
        "token list",
        "token revoke",
    }


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_a_command_has_an_example_that_names_it(words: tuple[str, ...]) -> None:
    named = " ".join(("holdfast", *words))
    alone = " ".join(("holdfast", words[0]))
    assert any(named in line or line == alone or f"holdfast {words[0]} " in line for line in examples_of(words))


def alone(line: str) -> list[str]:
    """The words of an example's own command: no variables before it, nothing that it is piped or fed into."""
    words = shlex.split(line, comments=True)
    first = next(index for index, word in enumerate(words) if word.endswith("holdfast"))
    rest = words[first + 1 :]
    ends = [index for index, word in enumerate(rest) if word in {"|", "&&", "||", ">", "<"}]
    return [word.rstrip(")") for word in rest[: ends[0] if ends else None]]


def parse(group: click.Group, words: list[str]) -> None:
    """Read words as the command line would, without running anything; click.UsageError for a wrong one."""
    ctx = click.Context(group, info_name="holdfast")
    while isinstance(group, click.Group) and words and not words[0].startswith("-"):
        found = group.get_command(ctx, words[0])
        assert found is not None, words
        if not isinstance(found, click.Group):
            found.make_context(words[0], words[1:], parent=ctx)
            return
        group, words, ctx = found, words[1:], click.Context(found, parent=ctx)
    listing = group.get_command(ctx, "list")  # a group alone lists
    assert listing is not None, words
    listing.make_context("list", words, parent=ctx)


@pytest.mark.parametrize("words", [(), *ALL], ids=" ".join)
def test_every_example_is_a_command_line_that_is_understood(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    for line in examples_of(words):
        if "--file" not in line:  # which is opened when it is read
            parse(main, alone(line))


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_a_command_has_a_heading_on_the_page(words: tuple[str, ...]) -> None:
    headings = re.findall(r"^#+ (.+?)\s*$", PAGE, re.MULTILINE)
    assert f"`holdfast {' '.join(words)}`" in headings


def test_the_page_names_no_command_that_there_is_not() -> None:
    named = {tuple(found.split()) for found in re.findall(r"^#+ `holdfast (.+?)`\s*$", PAGE, re.MULTILINE)}
    assert named == set(ALL)


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_every_option_of_a_command_is_on_the_page(words: tuple[str, ...]) -> None:
    shared = {"--json", "--url", "--token", "--timeout", "--help", "-h", "-f"}
    options = (
        set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", run(*words, "--help").out.partition("Examples:")[0])) - shared
    )
    section = PAGE.partition(f"`holdfast {' '.join(words)}`\n")[2]
    section = re.split(r"^#+ `holdfast", section, maxsplit=1, flags=re.MULTILINE)[0]
    assert not [option for option in sorted(options) if option not in section]


@pytest.mark.parametrize("exit_code", list(Exit), ids=lambda code: code.name)
def test_every_exit_code_is_on_the_page(exit_code: Exit) -> None:
    assert re.search(rf"^\| {exit_code.value} \|", PAGE, re.MULTILINE)


@pytest.mark.parametrize(
    "variable", ["HOLDFAST_URL", "HOLDFAST_TOKEN", "HOLDFAST_ADMIN_TOKEN", "HOLDFAST_CONFIG", "NO_COLOR"]
)
def test_every_variable_is_on_the_page(variable: str) -> None:
    assert f"| `{variable}` |" in PAGE
