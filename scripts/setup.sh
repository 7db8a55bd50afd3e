#!/usr/bin/env bash
# Sets up what Ferry needs beside its own code: a virtual environment in .venv with exactly the
# packages of requirements.txt, and a Java runtime. Does nothing if that is in place.
#
# With --tests also a browser, which the tests of the pages drive.
#
# FERRY_PYTHON names the Python to use; without it the first one that fits is taken.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly SUPPORTED="3.11 3.12" # what the locked packages have wheels for
readonly VENV=.venv
readonly STAMP=$VENV/setup-done
readonly JAVA_HOME_FILE=$VENV/java-home

say() { printf 'setup: %s\n' "$*" >&2; }
fail() {
    printf 'setup: error: %s\n' "$*" >&2
    exit 1
}

# What the stamp must hold. A checkout that was moved has to be set up again: scripts in a virtual
# environment name its absolute path.
key() {
    { pwd && cat requirements.txt pyproject.toml scripts/setup.sh; } | sha256sum | cut -d' ' -f1
}

python_version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

is_set_up() {
    [[ -f $STAMP && $(<"$STAMP") == "$(key)" && -x $VENV/bin/python ]] || return 1
    [[ -x $(<"$JAVA_HOME_FILE")/bin/java ]] || return 1
    [[ -z ${FERRY_PYTHON:-} ]] ||
        [[ $(python_version "$FERRY_PYTHON") == "$(python_version $VENV/bin/python)" ]]
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

count_installed() {
    find $VENV/lib/python*/site-packages -maxdepth 1 -name '*.dist-info' | wc -l
}

# How many lines of requirements.txt are for this Python and this system.
count_locked() {
    $VENV/bin/python - <<'PYTHON'
from pathlib import Path
from pip._vendor.packaging.requirements import Requirement

lines = (line for line in Path("requirements.txt").read_text().splitlines() if "==" in line)
locked = [Requirement(line) for line in lines if not line.lstrip().startswith("#")]
print(sum(1 for each in locked if each.marker is None or each.marker.evaluate()))
PYTHON
}

# Says how far pip is, until it ends: in place on a terminal, else a line every ten seconds.
show_progress() {
    local pid=$1 log=$2 total=$3 before fetched installed line began=$SECONDS
    before=$(count_installed)
    while kill -0 "$pid" 2>/dev/null; do
        fetched=$(grep -cE '^ *(Downloading|Using cached|Processing) ' "$log" || true)
        installed=$(($(count_installed) - before))
        line="packages: $fetched fetched, $installed of $total installed ($((SECONDS - began))s)"
        if [[ -t 2 ]]; then
            printf '\rsetup: %s  ' "$line" >&2
        elif (((SECONDS - began) % 10 == 0)); then
            say "$line"
        fi
        sleep 1
    done
    [[ ! -t 2 ]] || printf '\n' >&2
}

install_packages() {
    local log=$VENV/pip.log total pid
    total=$(count_locked)
    # The lock is complete, so pip need not resolve anything.
    $VENV/bin/python -m pip install --disable-pip-version-check --no-input --no-deps \
        --progress-bar off -r requirements.txt >"$log" 2>&1 &
    pid=$!
    # An interrupted set-up must not leave pip writing behind it.
    trap 'kill "$pid" 2>/dev/null || true' EXIT
    show_progress "$pid" "$log" "$total"
    if ! wait "$pid"; then
        tail -n 15 "$log" >&2
        fail "pip could not install requirements.txt; the whole log is in $log"
    fi
    trap - EXIT
    say "installing Ferry itself"
    $VENV/bin/python -m pip install --disable-pip-version-check --no-input --no-deps -q -e . ||
        fail "pip could not install Ferry itself"
    say "archiving the classes of Spark's Java: every step starts faster by it"
    JAVA_HOME=$(<"$JAVA_HOME_FILE") $VENV/bin/python -m pipelines.spark_archive ||
        say "going on without that archive: nothing but speed is lost"
}

main() {
    local python began=$SECONDS
    [[ ${1:-} != --tests ]] || require_browser
    is_set_up && exit 0
    [[ $(uname -sm) == "Linux x86_64" ]] ||
        fail "Ferry's locked packages are for Linux on x86-64; this is $(uname -sm)"
    python=$(find_python)
    require_venv_module "$python"
    say "Python: $python; the packages of requirements.txt go into $VENV"
    # Begun anew, also after an interruption: half an installation can look complete to pip.
    rm -f "$STAMP"
    "$python" -m venv --clear "$VENV"
    set_up_java
    install_packages
    key >"$STAMP"
    say "done in $((SECONDS - began))s"
}

main "$@"
