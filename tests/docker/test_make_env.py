"""`scripts/make_env.sh`: exactly the secrets that the compose file asks for, made once."""

from __future__ import annotations

import base64
import string
from pathlib import Path

from tests.docker import composition
from tests.docker.conftest import make_env


def test_it_makes_what_compose_requires_and_nothing_else(env: dict[str, str]) -> None:
    assert env.keys() == composition.required_variables()


def test_secrets_are_long_and_safe_wherever_they_are_put(env: dict[str, str]) -> None:
    safe = set(string.ascii_letters + string.digits + "-_")
    for name, value in env.items():
        assert len(value) >= 20, name
        assert set(value.removesuffix("=")) <= safe, name
    assert len(base64.urlsafe_b64decode(env["AIRFLOW_FERNET_KEY"])) == 32
    # HMAC-SHA512 wants a key as long as its digest.
    assert len(env["AIRFLOW_JWT_SECRET"]) >= 64


def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    make_env(tmp_path / ".env")
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == [".env"]


def test_a_second_run_keeps_the_first_ones_secrets(tmp_path: Path) -> None:
    make_env(tmp_path / ".env")
    before = (tmp_path / ".env").read_bytes()
    assert "left as it is" in make_env(tmp_path / ".env")
    assert (tmp_path / ".env").read_bytes() == before


def test_no_secret_is_made_twice(tmp_path: Path) -> None:
    make_env(tmp_path / "one")
    make_env(tmp_path / "two")
    one, two = composition.read_env(tmp_path / "one"), composition.read_env(tmp_path / "two")
    assert len({*one.values(), *two.values()}) == 2 * len(one)


def test_git_and_the_image_do_not_take_it_along() -> None:
    root = composition.COMPOSE_FILE.parent
    assert ".env" in (root / ".gitignore").read_text().splitlines()
    ignored = (root / ".dockerignore").read_text().splitlines()
    assert "*" in ignored and not any(line.startswith("!.env") for line in ignored)
