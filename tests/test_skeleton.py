"""What surrounds the code: help texts, the Makefile, the shelf of configs, docstrings, and what is fit to publish."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from harness.cli import VERBS

ROOT = Path(__file__).parent.parent
PACKAGES = ("tasks", "backends", "harness", "results", "configs")
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
MODULES = sorted(path for name in (*PACKAGES, "tests") for path in (ROOT / name).rglob("*.py"))
TESTS = [path for path in MODULES if path.name.startswith("test_")]
#: Where users are told what to type.
GUIDES = ("README.md", "CONTRIBUTING.md")
#: Files whose examples of private text are what they test the removal of.
HOLDS_EXAMPLES = {"tests/test_environment.py"}
PRIVATE = re.compile(
    r"""/(?:home|root|Users)/|\b[A-Z]:\\(?!n)|https?://\S*(?:pypi|/simple\b|download\.)|--(?:extra-)?index-url"""
)

ANSWER_AND_LIST = """\
import sys
from harness.cli import main
try:
    code = main(sys.argv[1:])
except SystemExit as end:
    code = end.code
loaded = {"torch", "torch_geometric", "dgl", "pandas", "relbench"} & sys.modules.keys()
sys.exit(f"loaded {loaded}" if loaded else code)
"""


def relduel(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a fresh interpreter that fails if it loaded a heavy package."""
    command = [sys.executable, "-c", ANSWER_AND_LIST, *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


def private_lines(text: str) -> list[str]:
    """Return the lines that name a folder of somebody's machine or the address of a package index."""
    return [line for line in text.splitlines() if PRIVATE.search(line)]


def code_of(text: str) -> str:
    """Return what stands as code in a Markdown text: fenced, indented or between backticks."""
    return "\n".join(re.findall(r"^```.*?^```|^    .*?$|`[^`\n]+`", text, flags=re.MULTILINE | re.DOTALL))


def config_faults(text: str) -> list[str]:
    """Say what in a config is more than values, or too long."""
    faults = [f"{len(text.splitlines())} lines"] if len(text.splitlines()) >= 20 else []
    data = yaml.safe_load(text)
    if not isinstance(data, dict):
        return [*faults, "no mapping"]
    return faults + [word for word in ("_target_", "${", "!!") if word in text]


def without_docstring(path: Path, *, tests_only: bool) -> list[str]:
    """List a module, and the test functions in it, that lack a docstring."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes: list[ast.AsyncFunctionDef | ast.FunctionDef | ast.ClassDef | ast.Module] = [] if tests_only else [tree]
    if tests_only:
        functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
        nodes += [node for node in functions if node.name.startswith("test_")]
    return [getattr(node, "name", path.name) for node in nodes if not ast.get_docstring(node)]


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb(verb: str) -> None:
    """Each verb explains itself with an example of its own, exit code 0, without loading anything heavy."""
    answer = relduel(verb, "--help")
    assert answer.returncode == 0, answer.stderr
    assert f"example:\n  relduel {verb}" in answer.stdout
    assert "--json" in answer.stdout


@pytest.mark.parametrize("words", [(), ("--help",)])
def test_overview_names_every_verb(words: tuple[str, ...]) -> None:
    """The overview, with and without --help, ends well and names every verb with what it does."""
    answer = relduel(*words)
    assert answer.returncode == 0, answer.stderr
    for verb, summary in VERBS.items():
        assert verb in answer.stdout
        assert summary.split()[0] in answer.stdout


def test_unknown_verb_is_a_usage_error() -> None:
    """A mistyped verb exits 2 and is answered with the closest one, on stderr alone."""
    answer = relduel("swep")
    assert answer.returncode == 2
    assert "did you mean 'sweep'" in answer.stderr
    assert answer.stdout == ""


@pytest.mark.parametrize("guide", GUIDES)
def test_commands_of_the_guides_exist(guide: str) -> None:
    """Every make target and every verb that a guide tells users to type is there."""
    code = code_of((ROOT / guide).read_text(encoding="utf-8"))
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    typed = set(re.findall(r"\bmake (?:[A-Z]+=\S+ )?([a-z-]+)", code))
    assert {"test"} <= typed <= targets
    assert set(re.findall(r"\brelduel ([a-z]+)", code)) <= VERBS.keys()


def test_only_code_is_read_as_commands() -> None:
    """Commands are found in fences, indented lines and between backticks, and nowhere in prose."""
    text = "relduel is prose\n\n```\nrelduel one\n```\n\n    relduel two\n\nso `relduel three` and make do"
    assert re.findall(r"\brelduel ([a-z]+)", code_of(text)) == ["one", "two", "three"]
    assert "make" not in code_of(text)


def test_readme_shows_the_two_commands() -> None:
    """The README names what sets everything up, `make demo` and `make test`, and the sweep of rel-f1."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for command in ("make demo", "make test", "relduel sweep rel-f1 dataset.path=FOLDER seed=0"):
        assert command in text


@pytest.mark.parametrize("guide", [*GUIDES, *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))])
def test_links_lead_somewhere(guide: str) -> None:
    """Every relative link of a document names a file of the checkout."""
    page = ROOT / guide
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_config_is_short_and_only_values(path: Path) -> None:
    """A config has fewer than 20 lines and holds values: nothing that is instantiated or interpolated."""
    assert config_faults(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "text", ["_target_: os.system\n", "a: ${b}\n", "- 1\n", "".join(f"k{i}: 1\n" for i in range(20))]
)
def test_a_config_that_is_more_than_values_is_found(text: str) -> None:
    """A class to instantiate, an interpolation, a bare list and a long file are faults."""
    assert config_faults(text)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module_has_a_docstring(path: Path) -> None:
    """Every module says what it is."""
    assert without_docstring(path, tests_only=False) == []


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)
def test_every_test_says_what_it_shows(path: Path) -> None:
    """Every test function has a docstring."""
    assert without_docstring(path, tests_only=True) == []


def test_a_missing_docstring_is_found(tmp_path: Path) -> None:
    """A module and a method without docstrings are named; helpers of a test file need none."""
    path = tmp_path / "test_bare.py"
    path.write_text("class TestIt:\n    def test_bare(self): ...\n    def helper(self): ...\n")
    assert without_docstring(path, tests_only=True) == ["test_bare"]
    assert without_docstring(path, tests_only=False) == ["test_bare.py"]


def test_no_file_names_a_machine_or_an_index() -> None:
    """No text file of the checkout holds a home folder, a drive letter or the address of a package index."""
    if not (ROOT / ".git").exists():
        pytest.skip("only a checkout knows which files are published")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = {name for name in listed.split("\0") if name and (ROOT / name).is_file()} - HOLDS_EXAMPLES
    assert {"README.md", "constraints.txt", "harness/cli.py"} <= names
    found = {name: private_lines((ROOT / name).read_text(encoding="utf-8", errors="ignore")) for name in names}
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "text",
    [
        "see /" + "home/alice/x.py",
        "in /" + "Users/alice",
        "C:" + "\\data",
        "-f htt" + "ps://pypi.example.org/simple",
        "--extra" + "-index-url x",
    ],
)
def test_private_text_is_found(text: str) -> None:
    """Folders of a machine and addresses of an index are recognised, each on its own."""
    assert private_lines(f"fine\n{text}\nfine") == [text]


def test_public_text_is_not_private() -> None:
    """Placeholders, ordinary links and system folders pass."""
    text = "dataset.path=FOLDER\nhttps://www.apache.org/licenses/\n/proc/self/status\nhome/alice\nunits: 3\\nabc"
    assert private_lines(text) == []


def test_constraints_are_exact_and_sorted() -> None:
    """constraints.txt pins one version a line, without local tags, and names every dependency of pyproject.toml."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", pin)] == []
    assert pins == sorted(pins, key=str.lower)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(item for extra in project["optional-dependencies"].values() for item in extra),
    ]
    names = {normal(re.split(r"[^A-Za-z0-9._-]", item)[0]) for item in wanted} - {"relduel"}
    assert names - {normal(pin.partition("==")[0]) for pin in pins} == set()


def normal(name: str) -> str:
    """Return a distribution's name in the normal form of PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()
