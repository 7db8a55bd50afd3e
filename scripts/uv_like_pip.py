"""Run uv with the package index, proxy and certificates that pip is configured with.

``uv_like_pip.py UV ARGUMENT…``: uv itself reads neither pip's files nor its variables. What is set
by a variable of uv's own stays. Nothing is printed: an index's address may hold a password.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

# What uv takes as it is from an option of pip's.
_SAME = {
    "index-url": "UV_DEFAULT_INDEX",
    "client-cert": "SSL_CLIENT_CERT",
    "default-timeout": "UV_HTTP_TIMEOUT",
    "timeout": "UV_HTTP_TIMEOUT",
    "retries": "UV_HTTP_RETRIES",
}
# uv's variables that have an older name, which a user may have set.
_NAMES = {
    "UV_DEFAULT_INDEX": ("UV_DEFAULT_INDEX", "UV_INDEX_URL"),
    "UV_INDEX": ("UV_INDEX", "UV_EXTRA_INDEX_URL"),
}


def pip_options() -> dict[str, str]:
    """Return the options that `pip install` is configured with, by their long names.

    Raises:
        CalledProcessError: pip's configuration can't be read; pip has said why.
    """
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    named = [line.partition("=") for line in listed.stdout.splitlines()]
    values = {name: ast.literal_eval(value) for name, _, value in named}
    # What comes later wins, as in pip.
    return {
        name.removeprefix(f"{section}."): value
        for section in ("global", "install", ":env:")
        for name, value in values.items()
        if name.startswith(f"{section}.") and value
    }


def _is_on(value: str) -> bool:
    return value.lower() in ("1", "true", "yes", "on", "y", "t")


def uv_settings(options: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that have uv do as pip does with these options."""
    settings = {_SAME[name]: value for name, value in options.items() if name in _SAME}
    if "extra-index-url" in options:
        settings["UV_INDEX"] = " ".join(options["extra-index-url"].split())
        # Else a package that is on one index is looked for on no other, in whatever version.
        settings["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    if "find-links" in options:
        # pip passes over a folder that is not there; for uv it would be an error.
        links = [
            link
            for link in options["find-links"].split()
            if "://" in link or Path(link).expanduser().exists()
        ]
        settings["UV_FIND_LINKS"] = ",".join(links)
    if "trusted-host" in options:
        settings["UV_INSECURE_HOST"] = " ".join(options["trusted-host"].split())
    if "cert" in options:
        is_folder = Path(options["cert"]).is_dir()
        settings["SSL_CERT_DIR" if is_folder else "SSL_CERT_FILE"] = options["cert"]
    if "proxy" in options:
        settings |= dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY"), options["proxy"])
    if _is_on(options.get("no-cache-dir", "")):
        settings["UV_NO_CACHE"] = "1"
    return {name: value for name, value in settings.items() if value}


def main(arguments: list[str]) -> None:
    """Run uv with pip's settings in its environment; exit as it does."""
    options = pip_options()
    settings = {
        name: value
        for name, value in uv_settings(options).items()
        if not name.startswith("UV_") or os.environ.keys().isdisjoint(_NAMES.get(name, (name,)))
    }
    if _is_on(options.get("no-index", "")):
        arguments = [*arguments, "--no-index"]
    done = subprocess.run(arguments, env={**os.environ, **settings}, check=False)
    sys.exit(done.returncode)


if __name__ == "__main__":
    main(sys.argv[1:])
