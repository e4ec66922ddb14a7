"""The wheel, installed in an empty environment elsewhere: nothing is missing from it, and it verifies every claim."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

import deq
from deq.rooms import ROOMS
from verification.registry import load_topics

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy of the sources, by the setuptools at hand: nothing is fetched, nothing is left behind."""
    source = tmp_path_factory.mktemp("source")
    for room in ROOMS:
        shutil.copytree(ROOT / room, source / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index",
                    "--wheel-dir", str(out), str(source)], check=True, timeout=300, cwd=out)
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The scripts' folder of an environment that holds this wheel, and sees the third-party packages at hand."""
    home = tmp_path_factory.mktemp("elsewhere") / "env"
    venv.create(home, with_pip=False)
    scripts = home / ("Scripts" if os.name == "nt" else "bin")
    subprocess.run([sys.executable, "-m", "pip", "--python", str(scripts / "python"), "install", "--quiet", "--no-deps",
                    "--no-index", str(wheel)], check=True, timeout=300, cwd=home)
    (packages,) = home.glob("**/site-packages")
    # A folder in a .pth file is a place to look in; its own .pth files (an editable install of ours) are not read.
    (packages / "third-party.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return scripts


def run(installed: Path, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a script of the environment as a stranger would: another folder, no HOME, no PYTHONPATH."""
    kept = {key: value for key, value in os.environ.items() if key not in ("HOME", "PYTHONPATH", "DEQPROOF_DATA")}
    return subprocess.run([str(installed / words[0]), *words[1:]], cwd=cwd, env=kept, capture_output=True, text=True,
                          timeout=3000, check=False)


def test_the_wheel_holds_every_file(wheel):
    listed = subprocess.run(["git", "ls-files", "-z", *ROOMS], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout: there is no list of files to compare with")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(f"deqproof-{deq.__version__}.dist-info/METADATA").decode()
    assert {name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()} <= names
    assert f"\nVersion: {deq.__version__}\n" in metadata
    assert "\nLicense-Expression: MIT\n" in metadata
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_packages_come_from_the_wheel(installed, tmp_path):
    done = run(installed, "python", "-c", "import deq, figures.cli; print(deq.__file__, figures.cli.__file__)",
               cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert all(Path(name).is_relative_to(installed.parent) for name in done.stdout.split())


def test_script_and_module_are_alike(installed, tmp_path):
    script = run(installed, "deqproof", "--version", cwd=tmp_path)
    module = run(installed, "python", "-m", "figures.cli", "--version", cwd=tmp_path)
    assert script.stdout == module.stdout == f"deqproof {deq.__version__}\n", script.stderr + module.stderr


@pytest.mark.timeout(3300)
def test_every_claim_is_verified_from_the_wheel(installed, tmp_path):
    done = run(installed, "deqproof", "verify", "--scale", "smoke", "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    found = {item["id"]: item["verdict"] for item in json.loads((tmp_path / "out/claims.json").read_text())}
    wanted = {claim.id for topic in load_topics() for claim in topic.claims}
    assert set(found) == wanted
    # Stored results travel in the wheel: what is read from them must not have become untested.
    lost = [item for item in json.loads((tmp_path / "out/claims.json").read_text())
            if item["verdict"] == "untested" and "verification/results" in json.dumps(item)]
    assert not lost
    assert (tmp_path / "out/report.html").stat().st_size > 100_000
