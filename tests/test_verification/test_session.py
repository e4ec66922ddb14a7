"""Whole runs: several processes, interruption, dying workers, clashing records."""

import dataclasses
import errno
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from verification import store as store_module
from verification.errors import UserError
from verification.progress import Progress
from verification.registry import load_topics
from verification.store import Store
from verification.verdict import Verdict

ROOT = Path(__file__).parents[2]


def go(session):
    with Progress(9, stream=io.StringIO()) as progress:
        session.run(progress)
    return session


def without_time(store):
    return [{**result.to_json(), "seconds": 0, "cpu_seconds": 0} for result in store.load_claims()]


def test_a_run_leaves_claims_run_and_records(claims_package, make_session):
    session = go(make_session(claims_package()))
    results = session.store.load_claims()
    assert [result.id for result in results] == ["sm-0001", "sm-0002", "sm-0003", "rmt-0001", "own-0001"]
    assert [str(result.verdict) for result in results] == ["supported", "refuted", "untested", "supported", "supported"]
    run = session.store.load_run()
    assert run["state"] == "complete"
    assert run["records"] == ["drawn"]
    record = session.store.load_record("drawn")
    assert record["array"] == [0.0, 1.0, 2.0]
    assert record["nan"] != record["nan"]


def test_results_do_not_depend_on_the_number_of_processes(claims_package, make_session):
    package = claims_package()
    one, two = go(make_session(package, 1, "one")), go(make_session(package, 2, "two"))
    assert without_time(one.store) == without_time(two.store)
    assert one.store.load_run()["records"] == two.store.load_run()["records"]
    assert (one.store.out / "records/drawn.json").read_text() == (two.store.out / "records/drawn.json").read_text()


def test_results_depend_on_the_seed(claims_package, make_session):
    package = claims_package()
    assert without_time(go(make_session(package, 1, "a")).store) != without_time(
        go(make_session(package, 1, "b", seed=1)).store
    )


STOPS = """
TOPIC = Topic("first", "Stops in the middle")

def interrupt(context):
    raise KeyboardInterrupt

claim(TOPIC, "sm-0001", lambda context: said("holds"))
claim(TOPIC, "sm-0002", interrupt)
claim(TOPIC, "sm-0003", lambda context: said("holds"))
"""


def test_an_interrupted_run_keeps_what_was_finished(claims_package, make_session):
    session = go(make_session(claims_package(first=STOPS)))
    assert session.interrupted
    assert [result.id for result in session.store.load_claims()] == ["sm-0001"]
    assert session.store.load_run()["state"] == "partial"


DIES = """
TOPIC = Topic("dies", "Its process dies")
claim(TOPIC, "sm-0001", lambda context: said("holds"))
claim(TOPIC, "sm-0002", lambda context: (time.sleep(0.2), os._exit(9)))
claim(TOPIC, "sm-0003", lambda context: said("holds"))
"""


def test_a_dead_worker_costs_only_its_topic(claims_package, make_session):
    lives = 'TOPIC = Topic("lives", "Lives")\nclaim(TOPIC, "own-0001", lambda context: said("holds"))\n'
    session = go(make_session(claims_package(dies=DIES, lives=lives), jobs=2))
    verdicts = {result.id: result for result in session.store.load_claims()}
    assert verdicts["own-0001"].verdict is Verdict.SUPPORTED
    assert verdicts["sm-0002"].verdict is Verdict.ERROR
    assert "exit codes [9]" in verdicts["sm-0002"].error
    assert verdicts["sm-0003"].verdict is Verdict.ERROR


def test_two_claims_cannot_write_one_record_differently(claims_package, make_session):
    source = """
TOPIC = Topic("clash", "Clash")

def writes(value):
    def check(context):
        context.record("same", {"value": value})
        return said("holds")
    return check

claim(TOPIC, "sm-0001", writes(1))
claim(TOPIC, "sm-0002", writes(1))
claim(TOPIC, "sm-0003", writes(2))
"""
    session = go(make_session(claims_package(clash=source)))
    assert [str(result.verdict) for result in session.ordered] == ["supported", "supported", "error"]
    assert "already written" in session.results["sm-0003"].error
    assert session.store.load_record("same") == {"value": 1}


def test_a_new_run_forgets_the_records_of_the_last(claims_package, make_session):
    session = go(make_session(claims_package()))
    session.store.save_record("from-bench", {"kept": 1})
    (session.store.out / "report.html").write_text("of the last run")
    session.topics = load_topics(session.package)[1:]
    go(session)
    assert not session.store.has_record("drawn")
    assert not (session.store.out / "report.html").exists()
    assert session.store.has_record("from-bench")


SLOW = """
TOPIC = Topic("slow", "Slow")
claim(TOPIC, "sm-0001", lambda context: said("holds"))
claim(TOPIC, "sm-0002", lambda context: time.sleep(60))
"""

DRIVER = """
import signal, sys
from pathlib import Path
from verification import session as module
from figures import cli
from figures.commands import verify
import functools
verify.load_topics = functools.partial(verify.load_topics, sys.argv[1])
verify.Session = functools.partial(module.Session, package=sys.argv[1])
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs that a shell runs in the background ignore it
    sys.exit(cli.main(["verify", "--out", sys.argv[2], "--jobs", sys.argv[3]]))
"""


@pytest.mark.parametrize(("sent", "jobs"), [(signal.SIGINT, "1"), (signal.SIGTERM, "2"), (signal.SIGKILL, "2")])
def test_a_run_stopped_from_outside_keeps_what_was_finished(claims_package, tmp_path, sent, jobs):
    other = 'TOPIC = Topic("other", "Other")\nclaim(TOPIC, "own-0001", lambda context: said("holds"))\n'
    package = claims_package(slow=SLOW, other=other)
    driver, out = tmp_path / "driver.py", tmp_path / "out"
    driver.write_text(DRIVER)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path / "packages")])}
    process = subprocess.Popen([sys.executable, str(driver), package, str(out), jobs], env=environment,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline and process.poll() is None:
            if (out / "claims.json").exists() and len(json.loads((out / "claims.json").read_text())) == 2:
                break
            time.sleep(0.1)
        time.sleep(0.2)
        process.send_signal(sent)
        stdout, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    assert {result.id for result in Store(out).load_claims()} == {"sm-0001", "own-0001"}, stderr
    if sent is signal.SIGKILL:
        assert Store(out).load_run()["state"] == "running"
        return
    assert process.returncode == 130, stderr
    assert "INTERRUPTED: 2 of 3 claims" in stdout
    assert Store(out).load_run()["state"] == "partial"
    assert "This report is partial" in (out / "report.html").read_text()


def folder(store):
    """Every file of a run, by name."""
    return {str(path.relative_to(store.out)): path.read_text() for path in sorted(store.out.rglob("*.*"))
            if path.is_file()}


WATCHES = """
TOPIC = Topic("first", "Looks at the folder while it runs, or stops")

def look(context):
    folder = context.out
    claims = [item["id"] for item in json.loads((folder / "claims.json").read_text())]
    context.record("seen", {"claims": claims, "report": (folder / "report.html").read_text()})
    return said("holds")

def stop(context):
    raise KeyboardInterrupt

claim(TOPIC, "sm-0001", FIRST)
claim(TOPIC, "sm-0002", SECOND)
"""


def second_run(claims_package, make_session, first, second):
    """A complete run with a report, then a run of other claims into the same folder."""
    session = go(make_session(claims_package()))
    (session.store.out / "report.html").write_text("of the last run")
    before = folder(session.store)
    source = "import json\n" + WATCHES.replace("FIRST", first).replace("SECOND", second)
    again = make_session(claims_package(first=source))
    assert again.store.out == session.store.out
    again.context = dataclasses.replace(again.context, out=again.store.out)
    return before, go(again)


def test_finished_results_stay_until_the_new_run_has_its_own(claims_package, make_session):
    _, session = second_run(claims_package, make_session, "look", "look")
    seen = session.store.load_record("seen")
    assert seen["claims"] == ["sm-0001", "sm-0002", "sm-0003", "rmt-0001", "own-0001"]
    assert seen["report"] == "of the last run"
    assert [result.id for result in session.store.load_claims()] == ["sm-0001", "sm-0002"]
    assert set(folder(session.store)) == {"claims.json", "run.json", "records/seen.json"}
    assert session.placed


def test_a_run_stopped_before_its_first_result_changes_nothing(claims_package, make_session):
    before, session = second_run(claims_package, make_session, "stop", "look")
    assert session.interrupted
    assert not session.placed
    assert folder(session.store) == before


def test_a_run_stopped_later_sets_the_finished_one_aside(claims_package, make_session):
    before, session = second_run(claims_package, make_session, "look", "stop")
    assert session.placed
    after = folder(session.store)
    assert {name: text for name, text in before.items() if after[f"previous/{name}"] != text} == {}
    assert session.store.load_run()["state"] == "partial"
    assert [result.id for result in session.store.load_claims()] == ["sm-0001"]


def test_a_full_disk_costs_no_finished_result(claims_package, make_session, monkeypatch):
    def full(path, text):
        if path.name == "claims.json" and "sm-0001" in text:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(path, text)

    replace = store_module._replace
    session = go(make_session(claims_package()))
    before = folder(session.store)
    again = make_session(claims_package())
    with monkeypatch.context() as patch:
        patch.setattr(store_module, "_replace", full)
        with pytest.raises(UserError, match=r"cannot write .*claims\.json: No space left on device\. Free some space"):
            go(again)
    assert {name: text for name, text in folder(session.store).items() if not name.startswith(".new/")} == before
    go(make_session(claims_package()))  # what the failed run left does not disturb the next
    assert set(folder(session.store)) == set(before)
