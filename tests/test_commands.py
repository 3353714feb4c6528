"""The verbs that read: ls, show, data describe, plot and completion."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from harness import cli

pytestmark = pytest.mark.usefixtures("own_cache")


def document(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """Run a verb with --json and return what it printed."""
    assert cli.main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("kind", ["datasets", "tasks", "models", "backends", "sweeps"])
def test_every_list_has_names_and_summaries(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`ls X --json` is a list of objects with a name and a one-line summary; the table names them all."""
    rows = document(capsys, "ls", kind)
    assert rows
    assert all(row["name"] and isinstance(row["summary"], str) and "\n" not in row["summary"] for row in rows)
    assert cli.main(["ls", kind]) == 0
    table = capsys.readouterr().out
    assert all(row["name"] in table for row in rows)


def test_tasks_carry_kind_and_type(capsys: pytest.CaptureFixture[str], rel_f1: Path) -> None:
    """Tasks of any folder are listed with their kind and type, also those that cannot be trained yet."""
    rows = {row["name"]: row for row in document(capsys, "ls", "tasks", "dataset=rel-f1", f"dataset.path='{rel_f1}'")}
    assert (rows["driver-dnf"]["kind"], rows["driver-dnf"]["task_type"]) == ("forecast", "binary_classification")
    assert rows["driver-circuit-compete"]["task_type"] == "recommendation"
    assert rows["results-position"]["kind"] == "autocomplete"


def test_describe_counts_what_is_in_the_files(capsys: pytest.CaptureFixture[str], rel_f1: Path) -> None:
    """Rows, keys, degrees and times of rel-f1, against counts made by hand."""
    found = document(capsys, "data", "describe", "dataset=rel-f1", f"dataset.path='{rel_f1}'")
    tables = {table["name"]: table for table in found["tables"]}
    assert {name: table["rows"] for name, table in tables.items()} == {
        "races": 1101,
        "circuits": 77,
        "drivers": 857,
        "constructors": 211,
        "results": 26080,
        "standings": 34124,
        "constructor_results": 12290,
        "constructor_standings": 13051,
        "qualifying": 9815,
    }
    assert found["val_time"] == "2005-01-01 00:00:00"
    assert tables["races"]["first_time"].startswith("1950-05-13")
    assert tables["drivers"]["time_column"] is None
    keys = {(key["table"], key["column"]): key for key in found["keys"]}
    races = keys[("races", "circuitId")]
    assert (races["target"], races["cardinality"], races["null_share"]) == ("circuits", "N:1", 0.0)
    assert races["degree_mean"] == pytest.approx(1101 / 77)
    roles = {column["name"]: column["role"] for column in tables["results"]["columns"]}
    assert (roles["resultId"], roles["raceId"], roles["date"]) == ("primary key", "key to races", "time")


def test_describe_draws_the_shop(capsys: pytest.CaptureFixture[str]) -> None:
    """The diagram names every table and key, a 1:1 key and a self reference too, with odd names quoted."""
    assert cli.main(["data", "describe", "dataset.scale=0.1", "--mermaid"]) == 0
    diagram = capsys.readouterr().out
    assert diagram.startswith("erDiagram\n")
    assert '"orders.2024" }o--|| "customers" : "customer_id"' in diagram
    assert '"employees" }o--|| "employees" : "manager_id"' in diagram
    assert '"reviews" |o--|| "items" : "item_id"' in diagram


def test_mermaid_takes_no_markup() -> None:
    """A name that is HTML or would end the quotes is made plain in the diagram."""
    from tasks.describe import _plain

    assert _plain('<img src=x onerror="alert(1)">') == '"_img src_x onerror__alert_1___"'


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data", "descrbe"], "did you mean 'describe'"),
        (["completion", "bsh"], "did you mean 'bash'"),
        (["plot", "--store", "nowhere"], "no readable trial"),
    ],
)
def test_mistyped_words_name_the_closest(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, exit code 2."""
    assert cli.main(arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("relduel sw", {"sweep"}),
        ("relduel run backend=p", {"pyg"}),
        ("relduel run model.ch", {"model.channels="}),
        ("relduel sweep dem", {"demo"}),
        ("relduel ls ta", {"tasks"}),
    ],
)
def test_bash_completes(line: str, expected: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The script, sourced by a real bash, offers what continues the line."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not installed")
    assert cli.main(["completion", "bash"]) == 0
    script = tmp_path / "relduel.bash"
    script.write_text(capsys.readouterr().out)
    words = line.replace("=", " = ").split()
    code = (
        f"source '{script}'; COMP_LINE='{line}'; COMP_POINT={len(line)}; COMP_WORDS=({' '.join(words)}); "
        f'COMP_CWORD={len(words) - 1}; compopt() {{ :; }}; _relduel; printf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    done = subprocess.run([bash, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == expected


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_names_every_verb(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each script offers all verbs, all sweeps and the keys of the config."""
    script = document(capsys, "completion", shell)["script"]
    for word in (*cli.VERBS, "demo", "rel-f1", "train.lr=", "backend=dgl"):
        assert word in script
