"""The results folder: round trip, damage, newer schemas, folders that take no files."""

import json

import pytest

from verification.errors import UserError
from verification.result import ClaimResult
from verification.store import SCHEMA, Store, write_text
from verification.verdict import Verdict

RESULT = ClaimResult(
    id="sm-0001",
    topic="t",
    title="A title",
    source="[SM] Prop. 1",
    statement="$x$",
    correction="",
    expected=Verdict.SUPPORTED,
    verdict=Verdict.SUPPORTED,
    method=("numerical",),
    seconds=1.5, cpu_seconds=1.0,
    control="passed",
    control_note="n",
    evidence=(
        {
            "method": "numerical",
            "outcome": "holds",
            "subject": "statement",
            "domain": "d",
            "numbers": {"bound": float("inf"), "error": 1e-12},
            "counts": {},
            "complete": False,
        },
    ),
)


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "deep" / "out")
    store.prepare()
    store.save_claims([RESULT])
    store.save_run("complete", {"seed": 0}, [])
    return store


def test_round_trip(store):
    (back,) = store.load_claims()
    assert back.to_json() == RESULT.to_json()
    assert store.load_run() == {"schema": SCHEMA, "state": "complete", "seed": 0, "records": []}


def test_claims_json_is_the_list_that_scripts_read(store):
    (item,) = json.loads((store.out / "claims.json").read_text(), parse_constant=lambda token: pytest.fail(token))
    assert {"id", "source", "statement", "verdict", "expected", "method", "evidence", "seconds"} <= item.keys()
    assert item["verdict"] == "supported"
    assert item["method"] == ["numerical"]
    assert item["evidence"][0]["numbers"] == {"bound": "Infinity", "error": 1e-12}


@pytest.mark.parametrize("damage", [
    lambda text: text[: len(text) // 2],
    lambda text: "{}",
    lambda text: text.replace('"supported"', '"certain"'),
    lambda text: text.replace('"numerical"', '"hearsay"'),
    lambda text: text.replace('"title"', '"titel"'),
    lambda text: text.replace("1.5", '"long"'),
    lambda text: text.replace('"passed"', '"maybe"'),
    lambda text: text.replace("1e-12", "NaN"),
    lambda text: "[1]",
], ids=["cut", "no list", "verdict", "method", "key", "seconds", "control", "nan token", "no object"])
def test_damaged_claims_are_named_and_not_loaded(store, damage):
    path = store.out / "claims.json"
    before = path.read_text()
    path.write_text(damage(before))
    assert path.read_text() != before
    with pytest.raises(UserError, match=r"claims\.json is damaged"):
        store.load_claims()


def test_a_newer_schema_is_refused(store):
    path = store.out / "run.json"
    path.write_text(path.read_text().replace(f'"schema": {SCHEMA}', f'"schema": {SCHEMA + 1}'))
    with pytest.raises(UserError, match=r"run\.json has schema 2, newer than"):
        store.load_claims()


@pytest.mark.parametrize("text", ["", "[]", '{"schema": "1"}', '{"schema": 1}'])
def test_a_damaged_run_file_is_named(store, text):
    (store.out / "run.json").write_text(text)
    with pytest.raises(UserError, match=r"run\.json is damaged"):
        store.load_run()


def test_missing_files_say_how_to_make_them(tmp_path):
    with pytest.raises(UserError, match=r"run\.json is missing; `deqproof verify --out"):
        Store(tmp_path).load_claims()
    with pytest.raises(UserError, match=r"none\.json is missing"):
        Store(tmp_path).load_record("none")


def test_damaged_record(store):
    (store.out / "records" / "r.json").write_text("[1")
    with pytest.raises(UserError, match=r"r\.json is damaged"):
        store.load_record("r")


def test_a_folder_that_takes_no_files(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot write to the output folder"):
        Store(tmp_path / "file").prepare()


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_text(path, "old")

    def full(*arguments):
        raise OSError("No space left on device")

    monkeypatch.setattr("verification.store.os.replace", full)
    with pytest.raises(UserError, match=r"cannot write .*a\.json: No space .* untouched"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["a.json"]
