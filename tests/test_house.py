"""The rules of the house, as far as a program can hold them: where things may stand, and what may stand in them.

Each test names every place that breaks its rule at once. What the documents must say is in `test_documents.py`.
"""

import ast
import io
import re
import subprocess
import sys
import tokenize
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tree import ROOT, Module, files, modules, name, package_modules, text

MOST_LINES = 450
MOST_LINES_OF_A_FUNCTION = 60
BANNED_WORDS = {"base", "common", "handler", "handlers", "helper", "helpers", "manager", "util", "utils"}


def broken(found: list[str]) -> str:
    return "\n  ".join(["", *found])


# --- imports ---------------------------------------------------------------------------------------------------------


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    program = "import sys; from importlinter.cli import lint_imports_command; lint_imports_command()"
    words = [sys.executable, "-c", program, "--no-cache", "--no-logo", "--config", str(ROOT / "pyproject.toml")]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603 - our own words


def test_imports_go_one_way_and_the_core_stays_pure() -> None:
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("path", "line", "complaint"),
    [
        ("proxy/core/rule.py", "import proxy.store", "proxy.core is not allowed to import proxy.store"),
        ("proxy/core/rule.py", "import time", "proxy.core is not allowed to import time"),
        ("proxy/forward/call.py", "import proxy.runtimes", "proxy.forward is not allowed to import proxy.runtimes"),
        ("proxy/loops/gate.py", "import proxy.web", "proxy.loops is not allowed to import proxy.web"),
        ("proxy/stray.py", "", "proxy.stray"),
    ],
)
def test_an_import_against_the_rules_is_found(path: str, line: str, complaint: str, tmp_path: Path) -> None:
    for package in ("core", "store", "runtimes", "probes", "forward", "loops", "web"):
        folder = tmp_path / "proxy" / package
        folder.mkdir(parents=True)
        (folder / "__init__.py").touch()
    (tmp_path / "proxy" / "__init__.py").touch()
    assert lint_imports(tmp_path).returncode == 0
    (tmp_path / path).write_text(f"{line}\n", encoding="utf-8")
    done = lint_imports(tmp_path)
    assert done.returncode != 0
    assert complaint in " ".join(done.stdout.split())


def test_nothing_in_the_core_waits() -> None:
    waiting = (ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith, ast.Await)
    found = [
        f"{module.name}:{node.lineno}: {type(node).__name__}"
        for module in package_modules("proxy/core")
        for node in ast.walk(module.tree)
        if isinstance(node, waiting)
    ]
    assert not found, broken(found)


# --- how a file is made ----------------------------------------------------------------------------------------------


def test_every_module_says_what_it_is() -> None:
    found = [module.name for module in modules() if not ast.get_docstring(module.tree)]
    assert not found, broken(found)


def test_every_package_of_the_proxy_has_an_init_file() -> None:
    folders = {module.path.parent for module in package_modules("proxy")}
    found = sorted(name(folder) for folder in folders if not (folder / "__init__.py").exists())
    assert not found, broken(found)


def test_no_module_or_class_is_named_after_nothing() -> None:
    found = []
    for module in modules():
        if BANNED_WORDS & set(re.split(r"[_\-.]", module.path.name.lower())):
            found.append(module.name)
        if module.name.startswith("proxy/"):
            classes = (node for node in ast.walk(module.tree) if isinstance(node, ast.ClassDef))
            found += [
                f"{module.name}:{node.lineno}: {node.name}"
                for node in classes
                if BANNED_WORDS & {word.lower() for word in re.findall(r"[A-Z][a-z]*", node.name)}
            ]
    assert not found, broken(found)


def lines_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count a function's lines, its docstring excepted: a table in it is documentation."""
    first, last = function.lineno, function.end_lineno or function.lineno
    doc = function.body[0] if ast.get_docstring(function, clean=False) is not None else None
    return last - first + 1 - (0 if doc is None else (doc.end_lineno or doc.lineno) - doc.lineno + 1)


def test_files_and_functions_can_be_read_in_one_sitting() -> None:
    found = []
    for module in modules():
        long = len(module.source.splitlines())
        if long > MOST_LINES:
            found.append(f"{module.name}: {long} lines; more than {MOST_LINES} hold two concepts")
        functions = (node for node in ast.walk(module.tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
        found += [
            f"{module.name}:{function.lineno}: {function.name} has {lines_of(function)} lines"
            for function in functions
            if lines_of(function) > MOST_LINES_OF_A_FUNCTION
        ]
    assert not found, broken(found)


# --- suppressions ----------------------------------------------------------------------------------------------------

NOQA = re.compile(r"#\s*noqa\b(?P<codes>:\s*[A-Z]+[0-9]+(?:[,\s]+[A-Z]+[0-9]+)*)?(?P<reason>[^#]*)")
IGNORE = re.compile(r"#\s*type:\s*ignore\b(?P<codes>\[[a-z\-, ]+\])?(?P<reason>.*)")
NO_COVER = re.compile(r"#\s*pragma:\s*no (?P<codes>cover|branch)(?P<reason>.*)")
WHOLE_FILE = re.compile(r"#\s*(?:ruff:\s*noqa|flake8:\s*noqa|mypy:|pylint:)")
REASON = re.compile(r"[a-z]{2,}\W+\w+", re.IGNORECASE)


def unreasoned(comment: str) -> str | None:
    """Return what is wrong with a comment that silences a tool, if it does."""
    if WHOLE_FILE.search(comment):
        return "silences a whole file"
    for pattern in (NOQA, IGNORE, NO_COVER):
        for found in pattern.finditer(comment):
            if not found["codes"]:
                return "names no code"
            if not REASON.search(found["reason"]):
                return "gives no reason"
    return None


def comments(module: Module) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(module.source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def test_nothing_is_silenced_without_a_code_and_a_reason() -> None:
    found = []
    for module in modules():
        for line, comment in comments(module):
            wrong = unreasoned(comment)
            if wrong is not None:
                found.append(f"{module.name}:{line}: {comment} ({wrong})")
    assert not found, broken(found)


@pytest.mark.parametrize(
    ("comment", "wrong"),
    [
        ("# noqa", "names no code"),
        ("# noqa: S105", "gives no reason"),
        ("# noqa: S105, S106 -", "gives no reason"),
        ("# noqa: S105 - not a password", None),
        ("# type: ignore", "names no code"),
        ("# type: ignore[arg-type]", "gives no reason"),
        ("# type: ignore[arg-type]  # the names were checked above", None),
        ("# type: ignore[arg-type]  # noqa: S105 - not a password", None),
        ("# pragma: no cover", "gives no reason"),
        ("# pragma: no cover - only on Windows", None),
        ("# ruff: noqa: S105 - not a password", "silences a whole file"),
        ("# an ordinary comment", None),
    ],
)
def test_a_suppression_needs_a_code_and_a_reason(comment: str, wrong: str | None) -> None:
    assert unreasoned(comment) == wrong


def test_every_rule_that_is_switched_off_for_all_says_why() -> None:
    section = text(ROOT / "pyproject.toml").split("[tool.ruff.lint]", 1)[1].split("[tool.ruff.lint.flake8", 1)[0]
    lines = [line.strip() for line in section.splitlines() if re.match(r'\s+"[A-Z]+[0-9]*"', line)]
    assert len(lines) > 10
    found = [line for line in lines if not REASON.search(line.partition("#")[2])]
    assert not found, broken(found)


# --- what the repository must not say --------------------------------------------------------------------------------

WORKPLACE = re.compile(
    r"/(?:home|root|Users|work)/|[.]pyenv\b|[.]library\b|\brulings?[.]md\b|\bruling \d|\bbehaviour[.]md\b"
)


@pytest.mark.parametrize("line", ["see /home" + "/me/x.py", "cd /work" + "/main", "as in ruling" + " 12"])
def test_a_word_of_a_workplace_is_recognised(line: str) -> None:
    assert WORKPLACE.search(line)


def test_the_repository_speaks_of_no_machine_and_no_workplace() -> None:
    found = [
        f"{name(path)}:{number}: {line.strip()[:100]}"
        for path in files()
        for number, line in enumerate(text(path).splitlines(), start=1)
        if WORKPLACE.search(line)
    ]
    assert not found, broken(found)


# --- packaging -------------------------------------------------------------------------------------------------------


def pins(group: str) -> dict[str, str]:
    lines = text(ROOT / "requirements" / f"{group}.txt").splitlines()
    pinned = [line for line in lines if line and not line.startswith("#")]
    assert pinned
    assert all(re.fullmatch(r"[a-z0-9-]+==[^\s=]+", line) for line in pinned), group
    return dict(line.split("==") for line in pinned)


def declared(group: str) -> list[Requirement]:
    project = tomllib.loads(text(ROOT / "pyproject.toml"))
    words = list(project["build-system"]["requires"]) + list(project["project"]["dependencies"])
    if group in {"demo", "check"}:
        words += project["project"]["optional-dependencies"]["demo"]
    if group in {"test", "check"}:
        words += project["dependency-groups"]["test"]
    if group == "check":
        words += project["dependency-groups"]["check"]
    return [Requirement(word) for word in words]


@pytest.mark.parametrize("group", ["runtime", "demo", "test", "check"])
def test_what_is_declared_is_pinned(group: str) -> None:
    pinned = pins(group)
    found = [
        f"{requirement} (pinned: {pinned.get(canonicalize_name(requirement.name))}); run scripts/lock"
        for requirement in declared(group)
        if not requirement.specifier.contains(pinned.get(canonicalize_name(requirement.name), "0"), prereleases=True)
    ]
    assert not found, broken(found)


def imported(module: Module) -> set[str]:
    """Return the top-level names that a module imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add((node.module or "").partition(".")[0])
    return names - sys.stdlib_module_names - {"proxy"}


def test_what_the_proxy_imports_is_declared() -> None:
    distributions = packages_distributions()
    allowed = {group: {canonicalize_name(one.name) for one in declared(group)} for group in ("runtime", "demo")}
    found = [
        f"{module.name}: {word}"
        for module in package_modules("proxy")
        for word in sorted(imported(module))
        if allowed["demo" if module.name.startswith("proxy/demo/") else "runtime"].isdisjoint(
            canonicalize_name(one) for one in distributions.get(word, [])
        )
    ]
    assert not found, broken(found)


def test_a_package_has_one_version_wherever_it_is_pinned() -> None:
    everything = pins("check")
    found = [
        f"{group}: {package} {version}"
        for group in ("runtime", "demo", "test")
        for package, version in pins(group).items()
        if everything.get(package) != version
    ]
    assert not found, broken(found)


def test_the_image_is_built_in_two_stages_runs_as_nobody_special_and_knows_its_health() -> None:
    lines = re.sub(r"\\\n\s*", " ", text(ROOT / "Dockerfile")).splitlines()
    words = [line.split(None, 1) for line in lines if line.strip() and not line.startswith("#")]
    stages = [rest for word, rest in words if word == "FROM"]
    assert len(stages) == 2
    assert all(stage.startswith("python:3.11-slim") for stage in stages)
    last = words[max(index for index, (word, _) in enumerate(words) if word == "FROM") :]
    final = {word: rest for word, rest in last if word != "ENV"}
    assert final["USER"] not in {"root", "0"}
    assert final["HEALTHCHECK"].endswith('CMD ["holdfast", "healthcheck"]')
    assert final["ENTRYPOINT"] == '["holdfast"]'
    assert final["CMD"].startswith('["serve", "--host", "0.0.0.0"')
    assert final["EXPOSE"] == "8080"


# --- scripts ---------------------------------------------------------------------------------------------------------

SHELL = [path for path in files() if text(path).startswith("#!/bin/sh")]
SCRIPTS = [path for path in files() if name(path).startswith(("scripts/", ".ci/"))]


@pytest.mark.parametrize("path", SHELL, ids=name)
def test_a_shell_script_is_well_formed_and_stops_at_the_first_failure(path: Path) -> None:
    done = subprocess.run(["/bin/sh", "-n", str(path)], capture_output=True, text=True, check=False)  # noqa: S603 - our own script
    assert done.returncode == 0, done.stderr
    assert "\nset -eu\n" in text(path)


def test_every_script_can_be_run_as_it_is() -> None:
    assert {"scripts/demo", "scripts/test", "scripts/check", ".ci/run"} <= {name(path) for path in SCRIPTS}
    found = [name(path) for path in SCRIPTS if not path.stat().st_mode & 0o100 or not text(path).startswith("#!")]
    assert not found, broken(found)


def test_continuous_integration_runs_what_the_readme_says_and_nothing_else() -> None:
    lines = [
        line for line in text(ROOT / ".ci" / "run").splitlines() if line and not line.startswith(("#", "set ", "cd "))
    ]
    develop = text(ROOT / "README.md").split("## Develop", 1)[1].split("\n## ", 1)[0]
    said = re.findall(r"^(scripts/\S+)", develop, re.MULTILINE)
    assert lines == [command for command in said if command in {"scripts/test", "scripts/check"}]


def test_a_python_without_ensurepip_is_told_which_package_to_install(tmp_path: Path) -> None:
    (tmp_path / "ensurepip.py").write_text("raise ImportError('not packaged here')\n", encoding="utf-8")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path} exec {sys.executable} "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    for folder in ("scripts", "requirements"):
        (tmp_path / folder).mkdir()
    for wanted in ("scripts/environment", "requirements/test.txt", "pyproject.toml"):
        (tmp_path / wanted).write_bytes((ROOT / wanted).read_bytes())
    words = ["/bin/sh", str(tmp_path / "scripts" / "environment"), "test"]
    environment = {"PATH": "/usr/bin:/bin", "PYTHON": str(python)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)  # noqa: S603 - our own script
    assert done.returncode == 1
    assert f"sudo apt-get install python3.{sys.version_info[1]}-venv" in done.stderr
    assert not (tmp_path / ".venv-test").exists()


@pytest.mark.parametrize(
    ("python", "sentence"),
    [("/nowhere/python3", "does not run or is older than Python 3.11"), ("", "sudo apt-get install python3.11")],
)
def test_a_machine_without_a_new_python_is_told_how_to_get_one(python: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "dirname").symlink_to("/usr/bin/dirname")
    words = ["/bin/sh", str(ROOT / "scripts" / "environment"), "test"]
    environment = {"PATH": str(tmp_path), "PYTHON": python}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)  # noqa: S603 - our own script
    assert done.returncode == 1
    assert sentence in done.stderr
