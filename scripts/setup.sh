#!/usr/bin/env bash
# Sets up what Ferry needs beside its own code: a virtual environment in .venv with exactly the
# packages of requirements.txt, and a Java runtime. Does nothing if that is in place.
#
# With --dev also the packages of requirements-dev.txt, for tests and linters; with --tests these
# and a browser, which the tests of the pages drive.
#
# uv installs, from where pip is configured to; pip itself does if uv can't be had or fails.
#
# FERRY_PYTHON names the Python to use; without it the first one that fits is taken.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly SUPPORTED="3.11 3.12" # what the locked packages have wheels for
readonly VENV=.venv
readonly STAMP=$VENV/setup-done
# Not there: nothing of requirements-dev.txt is installed. Empty: half of it may be.
readonly DEV_STAMP=$VENV/setup-dev-done
readonly JAVA_HOME_FILE=$VENV/java-home
# Beside the packages, not among them: they stay exactly those of the lock.
readonly UV_FOLDER=$VENV/uv
readonly UV_VERSION=0.13.8

# Without bytecode: all of it is compiled at once, later, on all cores.
readonly PIP_INSTALL=("$VENV/bin/python" -m pip install --disable-pip-version-check --no-input
    --no-deps --no-compile --progress-bar off)
# PySpark comes as source. Compressing its jars into a wheel, for uv to unpack them at once, would
# take a quarter of the whole set-up.
readonly UV_INSTALL=("$VENV/bin/python" scripts/uv_like_pip.py "$UV_FOLDER/bin/uv" pip install
    --python "$VENV/bin/python" --no-deps
    --config-settings-package "pyspark:--build-option=--compression=stored")

say() { printf 'setup: %s\n' "$*" >&2; }
fail() {
    printf 'setup: error: %s\n' "$*" >&2
    exit 1
}

# What the stamps must hold. A checkout that was moved has to be set up again: scripts in a virtual
# environment name its absolute path.
key() {
    { pwd && cat requirements.txt pyproject.toml scripts/setup.sh; } | sha256sum | cut -d' ' -f1
}
dev_key() {
    { key && cat requirements-dev.txt; } | sha256sum | cut -d' ' -f1
}

python_version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

can_run() {
    [[ -f $STAMP && $(<"$STAMP") == "$(key)" && -x $VENV/bin/python ]] || return 1
    [[ -x $(<"$JAVA_HOME_FILE")/bin/java ]] || return 1
    [[ -z ${FERRY_PYTHON:-} ]] ||
        [[ $(python_version "$FERRY_PYTHON") == "$(python_version $VENV/bin/python)" ]]
}

# Whether all is in place for what was asked: "run" or "dev".
is_set_up() {
    can_run && [[ $1 == run || (-f $DEV_STAMP && $(<"$DEV_STAMP") == "$(dev_key)") ]]
}

# One set-up at a time in this folder. What a killed one left running holds the lock as well, until
# it ends: nothing writes into an environment that another set-up makes.
take_lock() {
    exec 9<.
    flock --nonblock 9 && return
    say "another set-up is at work in this folder: waiting for it"
    flock 9
}

# Runs a command as root where that needs nobody to type a password.
as_root() {
    if [[ $(id -u) == 0 ]]; then
        "$@"
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        sudo -n "$@"
    else
        return 1
    fi
}

# Installs the first of the named packages that can be had.
apt_install() {
    local package
    command -v apt-get >/dev/null && as_root true || return 1
    as_root apt-get update -qq >&2 || say "apt-get update failed; trying with the lists as they are"
    for package in "$@"; do
        say "installing $package with apt-get"
        if as_root env DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -q --no-install-recommends "$package" >&2; then
            return 0
        fi
    done
    return 1
}

find_python() {
    local candidate version found=""
    for candidate in ${FERRY_PYTHON:-python3.11 python3.12 python3 python}; do
        version=$(python_version "$candidate") || continue
        if [[ " $SUPPORTED " == *" $version "* ]]; then
            # The interpreter itself: a launcher on PATH may choose another one in another folder.
            "$candidate" -c 'import sys; print(sys.executable)'
            return
        fi
        found+=" $candidate is $version,"
    done
    found=${found:+ (found:${found%,})}
    fail "Ferry needs Python ${SUPPORTED// / or }$found." \
        "Install one, or name it: make setup FERRY_PYTHON=/path/to/python3.11"
}

require_venv_module() {
    local version
    "$1" -c 'import ensurepip, venv' 2>/dev/null && return
    version=$(python_version "$1")
    apt_install "python$version-venv" && "$1" -c 'import ensurepip, venv' 2>/dev/null && return
    fail "$1 can't make virtual environments: run 'sudo apt-get install python$version-venv'" \
        "(or your system's package for Python's venv module), then try again"
}

# Prints the home of a Java runtime that can run Spark, or why the given one can't.
java_home_of() {
    local java=$1 version
    version=$("$java" -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p' | head -n1)
    if ((${version:-0} < 17)); then
        printf '%s is Java %s' "$java" "${version:-of an unknown version}"
        return 1
    fi
    if ! "$java" --list-modules 2>/dev/null | grep -q '^jdk.incubator.vector'; then
        printf '%s lacks the module jdk.incubator.vector' "$java"
        return 1
    fi
    dirname "$(dirname "$(readlink -f "$java")")"
}

find_java() {
    local java answer reasons=""
    for java in "${JAVA_HOME:+$JAVA_HOME/bin/java}" java; do
        java=$(command -v "${java:-none}") || continue
        if answer=$(java_home_of "$java"); then
            printf '%s' "$answer"
            return 0
        fi
        reasons+=" $answer;"
    done
    printf '%s' "${reasons%;}"
    return 1
}

set_up_java() {
    local answer
    if ! answer=$(find_java); then
        say "no Java runtime of version 17 or newer with all modules yet${answer:+ ($answer )}"
        apt_install openjdk-17-jre-headless openjdk-21-jre-headless default-jre-headless || true
        answer=$(unset JAVA_HOME && find_java) ||
            fail "Spark needs a full Java runtime, version 17 or newer. Run" \
                "'sudo apt-get install openjdk-17-jre-headless' (or your system's OpenJDK 17 or" \
                "newer), or set JAVA_HOME to one, then try again"
    fi
    printf '%s' "$answer" >"$JAVA_HOME_FILE"
    say "Java: $answer"
}

require_browser() {
    command -v chromium >/dev/null && return
    apt_install chromium && command -v chromium >/dev/null && return
    fail "the tests drive a browser: run 'sudo apt-get install chromium' (or put your system's" \
        "Chromium on PATH under that name), then try again"
}

declare -A JOBS=() # what runs in the background, by the id of its process group

# Runs a command in the background, its output in a log: start LOG COMMAND…
start() {
    local log=$1
    shift
    # Job control gives it a process group of its own, so that its children end with it.
    set -m
    "$@" >>"$log" 2>&1 </dev/null &
    set +m
    STARTED=$!
    JOBS[$STARTED]=running
}

# Nothing may write behind a set-up that ends before its time. Java, asked politely, would still
# write its archive.
stop_jobs() {
    local job
    for job in "${!JOBS[@]}"; do
        kill -KILL -- "-$job" 2>/dev/null && wait "$job" 2>/dev/null || true
    done
    JOBS=()
}

# Waits for the process `pid` and says meanwhile how far it is, by a function that prints a line: in
# place on a terminal, else every ten seconds.
wait_for() {
    local pid=$1 describe=$2 began=$SECONDS told=0 every=10
    [[ ! -t 2 ]] || every=1
    while kill -0 "$pid" 2>/dev/null; do
        if ((SECONDS - began >= told + every)); then
            told=$((SECONDS - began))
            if [[ -t 2 ]]; then
                printf '\rsetup: %s (%ds)  ' "$("$describe")" "$told" >&2
            else
                say "$("$describe") (${told}s)"
            fi
        fi
        sleep 0.2
    done
    [[ ! -t 2 || $told == 0 ]] || printf '\n' >&2
    unset "JOBS[$pid]"
    wait "$pid"
}

count_installed() {
    find $VENV/lib/python*/site-packages -maxdepth 1 -name '*.dist-info' | wc -l
}

# How many packages of a lock, for this Python and this system, are not installed yet.
count_missing() {
    $VENV/bin/python - "$1" <<'PYTHON'
import sys
from importlib.metadata import distributions
from pathlib import Path
from pip._vendor.packaging.requirements import Requirement

lines = (line for line in Path(sys.argv[1]).read_text().splitlines() if "==" in line)
locked = [Requirement(line) for line in lines if not line.lstrip().startswith("#")]
needed = {each.name for each in locked if each.marker is None or each.marker.evaluate()}
there = {each.name.lower().replace("_", "-") for each in distributions()}
print(len(needed - there))
PYTHON
}

describe_packages() {
    local fetched
    # uv names what is large, once as it begins and once as it has it.
    fetched=$(grep -cE "^ *($FETCHED) " "$LOG" || true)
    printf 'packages: %s fetched, %d of %d installed' \
        "$fetched$([[ $INSTALLER == pip ]] || printf ' large ones')" \
        "$(($(count_installed) - INSTALLED_BEFORE))" "$MISSING"
}

describe_speed_up() { printf 'compiling Python, and archiving the classes of Spark'\''s Java'; }

# Installs with uv or pip, as chosen by use_uv or use_pip: install ARGUMENT…
install() {
    start "$LOG" "${INSTALL[@]}" "$@"
    wait_for "$STARTED" describe_packages
}

use_pip() {
    INSTALLER=pip INSTALL=("${PIP_INSTALL[@]}") LOG=$VENV/pip.log
    FETCHED="Downloading|Using cached|Processing"
    : >"$LOG"
}

use_uv() {
    INSTALLER=uv INSTALL=("${UV_INSTALL[@]}") LOG=$VENV/uv.log FETCHED="Downloaded|Built"
    : >"$LOG"
    [[ ! -x $UV_FOLDER/bin/uv ]] || return 0
    "${PIP_INSTALL[@]}" -q --only-binary :all: --target "$UV_FOLDER" "uv==$UV_VERSION" \
        >>"$LOG" 2>&1 && "$UV_FOLDER/bin/uv" --version >>"$LOG" 2>&1
}

last_line() { tail -n 1 "$1"; }

compile() {
    # A file that can't be compiled fails where it is imported, if ever. Tests of packages never are.
    $VENV/bin/python -m compileall -qq -j 0 -x /tests/ $VENV/lib/python*/site-packages || true
}

start_archive() {
    start "$VENV/archive.log" env JAVA_HOME="$(<"$JAVA_HOME_FILE")" \
        $VENV/bin/python -m pipelines.spark_archive
    ARCHIVE=$STARTED
}

# Steps start faster by the archive, but go without it.
end_archive() {
    wait_for "$ARCHIVE" describe_speed_up ||
        say "going on without an archive of Spark's classes, nothing but speed is lost:" \
            "$(last_line "$VENV/archive.log")"
}

install_for_runs() {
    # TensorFlow is as large as half of the rest, and the archive needs nothing of it.
    grep -v '^tensorflow==' requirements.txt >"$VENV/all-but-tensorflow.txt"
    # The lock is complete, so nothing need be resolved.
    install -r "$VENV/all-but-tensorflow.txt" -e . || return 1
    start_archive
    install -r requirements.txt || return 1
    start /dev/null compile
    wait_for "$STARTED" describe_speed_up
    end_archive
}

set_up_for_runs() {
    local python
    python=$(find_python)
    require_venv_module "$python"
    say "Python: $python; the packages of requirements.txt go into $VENV"
    # Begun anew, also after an interruption: half an installation can look complete.
    rm -f "$STAMP"
    "$python" -m venv --clear "$VENV"
    set_up_java
    INSTALLED_BEFORE=$(count_installed)
    MISSING=$(count_missing requirements.txt)
    if ! { use_uv && install_for_runs; }; then
        say "pip installs, which takes longer: uv did not ($(last_line "$LOG"))"
        stop_jobs
        # uv may have failed half-way.
        "$python" -m venv --clear "$VENV"
        set_up_java
        use_pip
        if ! install_for_runs; then
            tail -n 15 "$LOG" >&2
            fail "pip could not install requirements.txt; the whole log is in $LOG"
        fi
    fi
    key >"$STAMP"
}

set_up_for_tests() {
    say "the packages of requirements-dev.txt go into $VENV"
    : >"$DEV_STAMP"
    INSTALLED_BEFORE=$(count_installed)
    MISSING=$(count_missing requirements-dev.txt)
    if ! { use_uv && install -r requirements-dev.txt; }; then
        say "pip installs, which takes longer: uv did not ($(last_line "$LOG"))"
        use_pip
        if ! install -r requirements-dev.txt; then
            tail -n 15 "$LOG" >&2
            fail "pip could not install requirements-dev.txt; the whole log is in $LOG"
        fi
    fi
    start /dev/null compile
    wait_for "$STARTED" describe_speed_up
    dev_key >"$DEV_STAMP"
}

main() {
    local began=$SECONDS for=run
    [[ ${1:-} != --dev && ${1:-} != --tests ]] || for=dev
    [[ ${1:-} != --tests ]] || require_browser
    is_set_up $for && exit 0
    [[ $(uname -sm) == "Linux x86_64" ]] ||
        fail "Ferry's locked packages are for Linux on x86-64; this is $(uname -sm)"
    take_lock
    is_set_up $for && exit 0
    trap stop_jobs EXIT
    # Whatever command is waited for when the signal comes.
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    # Of another lock, or begun and not ended: there is no telling what it installed.
    if ! can_run || [[ -e $DEV_STAMP ]]; then
        set_up_for_runs
    fi
    [[ $for == run ]] || set_up_for_tests
    say "done in $((SECONDS - began))s"
}

main "$@"
