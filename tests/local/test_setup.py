"""`scripts/setup.sh` on machines that lack something: every tool it calls is a stand-in here."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.services import REPOSITORY

_TOOLS = (
    "bash cat cp cut dirname env find flock grep head mkdir readlink rm sed sha256sum sleep tail"
    " uname wc"
)
# Installs a lock by making the folders that say what is installed. Files beside it tell it to fail,
# or to be slow.
_PYTHON = r"""#!/bin/bash
echo "$*" | head -n1 >>calls
there=.venv/lib/python3.11/site-packages
case "$*" in
*version_info*) echo {version} ;;
*sys.executable*) echo "$0" ;;
*'-m venv'*) rm -rf .venv; mkdir -p .venv/bin $there
    cp "$0" .venv/bin/python ;;
*'pip install'*'--target .venv/uv uv=='*)
    [[ ! -e uv-missing ]] || {{ echo ERROR: no uv; exit 1; }}
    mkdir -p .venv/uv/bin; cp "$0" .venv/uv/bin/uv ;;
scripts/uv_like_pip.py*)
    while [[ -e uv-waits ]]; do sleep 0.05; done
    [[ ! -e uv-fails ]] || {{ echo error: uv is broken; exit 1; }} ;;&
*' -m pip install'*|'-m pip install'*)
    [[ ! -e pip-fails ]] || {{ echo no such package; exit 1; }} ;;&
*'pip install'*)
    while (($#)); do
        [[ $1 != -r ]] || sed -n 's/==.*//p' "$2" |
            while read -r name; do mkdir -p "$there/$name-1.dist-info"; done
        shift
    done ;;
*pipelines.spark_archive*)
    [[ ! -e archive-fails ]] || {{ echo Java broke; exit 1; }}
    [[ ! -e archive-waits ]] || {{ bash -c ': >archive-began; sleep 300; : the archive'; }} ;;
-\ *) cat >/dev/null; echo 2 ;;
esac
"""
_JAVA = """#!/bin/bash
[[ $1 == -version ]] && echo 'openjdk version "{version}" 2026-01-01' >&2 && exit
echo java.base@1; echo '{module}'
"""


@dataclass
class Machine:
    """A checkout, and a PATH on which there is only what a test puts there."""

    checkout: Path
    path: Path

    def add(self, name: str, script: str) -> None:
        file = self.path / name
        file.write_text(script)
        file.chmod(0o755)

    def add_python(self, name: str = "python3.11", version: str = "3.11") -> None:
        self.add(name, _PYTHON.format(version=version))

    def add_java(self, version: str = "17.0.1", module: str = "jdk.incubator.vector@1") -> None:
        self.add("java", _JAVA.format(version=version, module=module))

    def set_up(self, *arguments: str, **env: str) -> tuple[int, str]:
        done = subprocess.run(
            [shutil.which("bash") or "bash", "scripts/setup.sh", *arguments],
            cwd=self.checkout,
            env={"PATH": str(self.path), "HOME": str(self.checkout), **env},
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.returncode, done.stderr

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a set-up and don't wait for its end."""
        return subprocess.Popen(
            [shutil.which("bash") or "bash", "scripts/setup.sh", *arguments],
            cwd=self.checkout,
            env={"PATH": str(self.path), "HOME": str(self.checkout)},
            stderr=subprocess.PIPE,
            text=True,
        )

    def switch(self, name: str, on: bool = True) -> None:
        """Have a stand-in fail or wait, or no more."""
        file = self.checkout / name
        file.touch() if on else file.unlink()

    @property
    def installed(self) -> set[str]:
        """What is installed of the two locks' packages."""
        folders = self.checkout.glob(".venv/lib/*/site-packages/*.dist-info")
        return {folder.name.removesuffix("-1.dist-info") for folder in folders}

    @property
    def calls(self) -> str:
        file = self.checkout / "calls"
        return file.read_text() if file.exists() else ""


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    checkout, path = tmp_path / "a checkout", tmp_path / "bin"
    (checkout / "scripts").mkdir(parents=True)
    path.mkdir()
    for name in ("pyproject.toml", "scripts/setup.sh"):
        shutil.copy(REPOSITORY / name, checkout / name)
    (checkout / "requirements.txt").write_text("library==1\ntensorflow==1\n")
    (checkout / "requirements-dev.txt").write_text("checker==1\n")
    for tool in _TOOLS.split():
        (path / tool).symlink_to(shutil.which(tool) or tool)
    machine = Machine(checkout, path)
    machine.add("id", "#!/bin/bash\necho 1000\n")
    return machine


def test_a_second_set_up_does_nothing(machine: Machine) -> None:
    machine.add_python()
    machine.add_java()
    code, output = machine.set_up()
    assert code == 0, output
    assert "done in" in output
    assert machine.installed == {"library", "tensorflow"}
    calls = machine.calls
    assert machine.set_up() == (0, "")
    assert machine.calls == calls


@pytest.mark.parametrize("change", ["requirements.txt", "pyproject.toml"])
def test_a_changed_lock_is_set_up_anew(machine: Machine, change: str) -> None:
    machine.add_python()
    machine.add_java()
    machine.set_up()
    with (machine.checkout / change).open("a") as file:
        file.write("# changed\n")
    assert "done in" in machine.set_up()[1]


@pytest.fixture
def ready(machine: Machine) -> Machine:
    """A machine that lacks nothing."""
    machine.add_python()
    machine.add_java()
    return machine


def test_what_only_tests_need_is_installed_only_for_them(ready: Machine) -> None:
    assert ready.set_up()[0] == 0
    assert ready.installed == {"library", "tensorflow"}
    code, output = ready.set_up("--dev")
    assert code == 0, output
    assert ready.installed == {"library", "tensorflow", "checker"}
    # Added to what was there.
    assert ready.calls.count("-m venv --clear") == 1
    for arguments in (["--dev"], []):
        assert ready.set_up(*arguments) == (0, "")


def test_another_lock_of_the_tests_is_set_up_anew(ready: Machine) -> None:
    ready.set_up("--dev")
    (ready.checkout / "requirements-dev.txt").write_text("other_checker==1\n")
    # Nothing that a run needs has changed.
    assert ready.set_up() == (0, "")
    code, output = ready.set_up("--dev")
    assert code == 0, output
    assert ready.installed == {"library", "tensorflow", "other_checker"}


def test_uv_installs(ready: Machine) -> None:
    code, output = ready.set_up("--dev")
    assert code == 0, output
    installed = [call for call in ready.calls.splitlines() if "pip install" in call]
    assert "--target .venv/uv uv==" in installed[0]
    assert all("scripts/uv_like_pip.py .venv/uv/bin/uv " in call for call in installed[1:])
    # Once for all packages but TensorFlow, once for it, once for those of the tests.
    assert len(installed) == 4


@pytest.mark.parametrize(
    ("broken", "why"), [("uv-missing", "ERROR: no uv"), ("uv-fails", "error: uv is broken")]
)
def test_pip_installs_where_uv_does_not(ready: Machine, broken: str, why: str) -> None:
    ready.switch(broken)
    code, output = ready.set_up("--dev")
    assert code == 0, output
    assert f"pip installs, which takes longer: uv did not ({why})" in output
    assert ready.installed == {"library", "tensorflow", "checker"}
    # uv may have failed half-way: nothing of what it did is left.
    assert ready.calls.count("-m venv --clear") == 2


def test_an_unfinished_set_up_is_begun_anew(ready: Machine) -> None:
    ready.switch("uv-fails")
    ready.switch("pip-fails")
    code, output = ready.set_up()
    assert code == 1
    assert "no such package" in output
    assert "pip could not install requirements.txt" in output
    ready.switch("uv-fails", on=False)
    before = ready.calls.count("-m venv --clear")
    code, output = ready.set_up()
    assert code == 0, output
    assert ready.calls.count("-m venv --clear") == before + 1


def test_an_unfinished_set_up_of_the_tests_leaves_runs_alone(ready: Machine) -> None:
    ready.set_up()
    ready.switch("uv-fails")
    ready.switch("pip-fails")
    code, output = ready.set_up("--dev")
    assert code == 1
    assert "pip could not install requirements-dev.txt" in output
    assert ready.set_up() == (0, "")
    ready.switch("uv-fails", on=False)
    code, output = ready.set_up("--dev")
    assert code == 0, output
    assert ready.calls.count("-m venv --clear") == 2
    assert ready.installed == {"library", "tensorflow", "checker"}


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_set_up_leaves_nothing_running(ready: Machine, stop: int) -> None:
    ready.switch("archive-waits")
    set_up = ready.begin()
    _until((ready.checkout / "archive-began").exists)
    assert _running_in(ready.checkout)
    set_up.send_signal(stop)
    set_up.communicate(timeout=20)
    assert set_up.returncode != 0
    _until(lambda: not _running_in(ready.checkout))
    ready.switch("archive-waits", on=False)
    code, output = ready.set_up()
    assert code == 0, output
    assert ready.calls.count("-m venv --clear") == 2


def test_two_set_ups_at_once_do_the_work_of_one(ready: Machine) -> None:
    ready.switch("uv-waits")
    first = ready.begin()
    _until(lambda: "requirements" in ready.calls or "all-but" in ready.calls)
    second = ready.begin()
    assert second.stderr is not None
    assert "another set-up is at work in this folder" in second.stderr.readline()
    ready.switch("uv-waits", on=False)
    for each in (first, second):
        output = each.communicate(timeout=30)[1]
        assert each.returncode == 0, output
    assert ready.calls.count("-m venv --clear") == 1


def test_a_run_goes_without_the_archive_of_classes(ready: Machine) -> None:
    ready.switch("archive-fails")
    code, output = ready.set_up()
    assert code == 0, output
    assert "going on without an archive of Spark's classes" in output
    assert "Java broke" in output


def _running_in(folder: Path) -> list[int]:
    """Return the processes that work in a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink() == folder:
                found.append(int(process.name))
        except OSError:  # it has ended
            continue
    return found


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def _uv_as_pip_is_configured(tmp_path: Path, configuration: str, **env: str) -> dict[str, str]:
    """Return the environment that uv gets, and under "" its arguments."""
    (tmp_path / "pip.conf").write_text(configuration)
    uv = tmp_path / "uv"
    uv.write_text('#!/bin/bash\nenv\necho "=$*"\n')
    uv.chmod(0o755)
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PIP_", "UV_", "SSL_"))
    }
    done = subprocess.run(
        [sys.executable, REPOSITORY / "scripts/uv_like_pip.py", uv, "pip", "install"],
        env={**kept, "PIP_CONFIG_FILE": str(tmp_path / "pip.conf"), **env},
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)


def test_uv_takes_packages_from_where_pip_does(tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    got = _uv_as_pip_is_configured(
        tmp_path,
        "[global]\n"
        "index-url = https://user:secret@packages.invalid/simple\n"
        "extra-index-url = https://one.invalid/simple\n    https://two.invalid/simple\n"
        f"find-links = {tmp_path}/wheels {tmp_path}/not-there https://three.invalid/\n"
        "trusted_host = packages.invalid\n"
        "timeout = 15\n"
        "[install]\n"
        "timeout = 77\nno-index = true\n",
        PIP_CERT=str(tmp_path / "ca.pem"),
        PIP_PROXY="http://proxy.invalid:3128",
    )
    assert got["UV_DEFAULT_INDEX"] == "https://user:secret@packages.invalid/simple"
    assert got["UV_INDEX"] == "https://one.invalid/simple https://two.invalid/simple"
    assert got["UV_INDEX_STRATEGY"] == "unsafe-best-match"
    assert got["UV_FIND_LINKS"] == f"{tmp_path}/wheels,https://three.invalid/"
    assert got["UV_INSECURE_HOST"] == "packages.invalid"
    assert got["UV_HTTP_TIMEOUT"] == "77"
    assert got["SSL_CERT_FILE"] == str(tmp_path / "ca.pem")
    assert got["HTTPS_PROXY"] == "http://proxy.invalid:3128"
    assert got[""] == "pip install --no-index"


def test_what_is_set_for_uv_itself_stays(tmp_path: Path) -> None:
    got = _uv_as_pip_is_configured(
        tmp_path, "[global]\nindex-url = https://pip.invalid/\n", UV_INDEX_URL="https://uv.invalid/"
    )
    assert got["UV_INDEX_URL"] == "https://uv.invalid/"
    assert "UV_DEFAULT_INDEX" not in got
    assert got[""] == "pip install"


def test_the_two_locks_agree() -> None:
    def locked(name: str) -> dict[str, str]:
        lines = (REPOSITORY / name).read_text().splitlines()
        pins = [line.partition("==")[::2] for line in lines if re.match(r"\w.*==", line)]
        return {f"{name} {pin.partition(';')[2]}": pin.partition(" ")[0] for name, pin in pins}

    run, dev = locked("requirements.txt"), locked("requirements-dev.txt")
    assert {name: run[name] for name in run.keys() & dev} == {
        name: dev[name] for name in run.keys() & dev
    }
    assert "pytest " in dev.keys() - run


def test_the_tests_need_a_browser_too(machine: Machine) -> None:
    machine.add_python()
    machine.add_java()
    code, output = machine.set_up("--tests")
    assert code == 1
    assert "run 'sudo apt-get install chromium'" in output
    # A user without root's rights, and one whose apt can install it.
    machine.add("id", "#!/bin/bash\necho 0\n")
    machine.add("apt-get", "#!/bin/bash\n[[ $* != *chromium ]] || cp bin/true ${0%/*}/chromium\n")
    (machine.checkout / "bin").mkdir()
    (machine.checkout / "bin/true").write_text("#!/bin/bash\n")
    (machine.checkout / "bin/true").chmod(0o755)
    code, output = machine.set_up("--tests")
    assert code == 0, output
    assert "installing chromium with apt-get" in output
    assert machine.set_up("--tests") == (0, "")


def test_an_unsupported_python_is_named(machine: Machine) -> None:
    machine.add_python("python3", "3.13")
    code, output = machine.set_up()
    assert code == 1
    assert "Ferry needs Python 3.11 or 3.12 (found: python3 is 3.13)" in output
    assert not (machine.checkout / ".venv").exists()


def test_the_python_can_be_chosen(machine: Machine) -> None:
    machine.add_python("python3.11", "3.11")
    machine.add_python("other", "3.12")
    machine.add_java()
    assert f"Python: {machine.path}/other" in machine.set_up(FERRY_PYTHON="other")[1]
    assert machine.set_up(FERRY_PYTHON="other") == (0, "")
    # Without the variable, what is there will do.
    assert machine.set_up() == (0, "")


@pytest.mark.parametrize(
    ("version", "module"), [("11.0.2", "jdk.incubator.vector@11"), ("17.0.1", "java.sql@17")]
)
def test_a_java_that_will_not_do_is_explained(machine: Machine, version: str, module: str) -> None:
    machine.add_python()
    machine.add_java(version, module)
    code, output = machine.set_up()
    assert code == 1
    assert f"{machine.path}/java" in output
    assert "sudo apt-get install openjdk-17-jre-headless" in output


def test_java_is_installed_where_root_may(machine: Machine) -> None:
    machine.add_python()
    machine.add("id", "#!/bin/bash\necho 0\n")
    java = _JAVA.format(version="21.0.1", module="jdk.incubator.vector@21")
    # A system that has no Java 17 any more, but 21.
    machine.add(
        "apt-get",
        "#!/bin/bash\n"
        "[[ $* != *jre* ]] && exit; [[ $* == *openjdk-21-jre-headless* ]] || exit 100\n"
        f"cat >{machine.path}/java <<'END'\n{java}END\n"
        f"{shutil.which('chmod')} 755 {machine.path}/java\n",
    )
    code, output = machine.set_up()
    assert code == 0, output
    assert "installing openjdk-21-jre-headless with apt-get" in output


def test_a_java_home_that_will_not_do_gives_way_to_path(machine: Machine, tmp_path: Path) -> None:
    machine.add_python()
    machine.add_java()
    old = tmp_path / "old" / "bin"
    old.mkdir(parents=True)
    shutil.copy(machine.path / "java", old / "java")
    (old / "java").write_text(_JAVA.format(version="1.8.0_1", module=""))
    code, output = machine.set_up(JAVA_HOME=str(old.parent))
    assert code == 0, output
    assert (machine.checkout / ".venv" / "java-home").read_text() == str(tmp_path)
