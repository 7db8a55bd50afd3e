"""`scripts/setup.sh` on machines that lack something: every tool it calls is a stand-in here."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.services import REPOSITORY

_TOOLS = (
    "bash cat cp cut dirname env find grep head mkdir readlink rm sed sha256sum sleep tail uname wc"
)
_PYTHON = """#!/bin/bash
echo "$*" | head -n1 >>calls
case "$*" in
*version_info*) echo {version} ;;
*sys.executable*) echo "$0" ;;
*'-m venv'*) rm -rf .venv; mkdir -p .venv/bin .venv/lib/python3.11/site-packages
    cp "$0" .venv/bin/python ;;
*'pip install'*'-r requirements.txt'*)
    [[ ! -e pip-fails ]] || {{ echo no such package; exit 1; }} ;;
-) cat >/dev/null; echo 2 ;;
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

    @property
    def calls(self) -> str:
        file = self.checkout / "calls"
        return file.read_text() if file.exists() else ""


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    checkout, path = tmp_path / "a checkout", tmp_path / "bin"
    (checkout / "scripts").mkdir(parents=True)
    path.mkdir()
    for name in ("requirements.txt", "pyproject.toml", "scripts/setup.sh"):
        shutil.copy(REPOSITORY / name, checkout / name)
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
    calls = machine.calls
    assert "pip install" in calls
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


def test_an_unfinished_set_up_is_begun_anew(machine: Machine) -> None:
    machine.add_python()
    machine.add_java()
    (machine.checkout / "pip-fails").touch()
    code, output = machine.set_up()
    assert code == 1
    assert "no such package" in output
    assert "pip could not install requirements.txt" in output
    (machine.checkout / "pip-fails").unlink()
    code, output = machine.set_up()
    assert code == 0, output
    assert machine.calls.count("-m venv --clear") == 2


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
