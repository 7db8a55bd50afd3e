"""Starts and stops the embedded services and Airflow, and says whether they are well."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from local import commands, health
from local.credentials import Secrets, load_secrets
from local.environment import (
    Schedule,
    airflow_environment,
    process_environment,
    write_environment_file,
)
from local.home import Home
from local.processes import Group, fingerprint
from pipelines.capacity import describe
from pipelines.config import load_pipeline_config
from pipelines.errors import ConfigError, ServiceError

Say = Callable[[str], None]

_SERVICES_SECONDS = 90.0
_AIRFLOW_SECONDS = 180.0
_LOG_LINES_SHOWN = 15


@dataclass(frozen=True)
class Probe:
    """How to see that one service is well."""

    name: str
    address: str
    answers: Callable[[], bool]


class Stack:
    """The two groups of `home`: the services, and Airflow."""

    def __init__(self, home: Home, say: Say) -> None:
        self.home = home
        self.services = Group(home, "services")
        self.airflow = Group(home, "airflow")
        self.say = say
        self._loaded: Secrets | None = None

    @property
    def secrets(self) -> Secrets:
        """The secrets; generated at their first use."""
        if self._loaded is None:
            self._loaded = load_secrets(self.home)
        return self._loaded

    def service_probes(self) -> tuple[Probe, ...]:
        """Return the probes of the services."""
        redis, s3 = self.home.port("redis").number, self.home.port("s3").number
        grpc, rest = self.home.port("tf_grpc").number, self.home.port("tf_rest").number
        password = self.secrets.redis_password
        return (
            Probe(
                "redis", self.home.address("redis"), lambda: health.redis_answers(redis, password)
            ),
            Probe("s3", f"http://{self.home.address('s3')}", lambda: health.s3_answers(s3)),
            Probe(
                "model_server",
                f"{self.home.address('tf_grpc')} (gRPC), http://{self.home.address('tf_rest')}",
                lambda: health.model_server_answers(grpc, rest),
            ),
        )

    def airflow_probe(self) -> Probe:
        """Return the probe of Airflow as a whole."""
        port = self.home.port("airflow").number
        address = f"http://{self.home.address('airflow')}"
        return Probe("api-server", address, lambda: health.airflow_answers(port))

    def services_up(self) -> None:
        """Start the services unless they run as they should; wait until all of them answer.

        Raises:
            ConfigError: a port is taken.
            ServiceError: a service did not come up; the message ends with the end of its log.
        """
        self.home.make_folders()
        write_environment_file(self.home, self.secrets)
        wanted = (
            commands.redis_command(
                self.home.redis,
                self.home.port("redis").number,
                self.secrets.redis_password,
                self.home.redis_maxmemory,
            ),
            commands.s3_command(
                self.home.objects,
                self.home.port("s3").number,
                self.secrets.s3_access_key,
                self.secrets.s3_secret_key,
            ),
            commands.model_server_command(
                self.home.models_config,
                self.home.port("tf_grpc").number,
                self.home.port("tf_rest").number,
            ),
        )
        digest = fingerprint(wanted, {}, self.home.redis / "redis.conf")
        if self._is_current(self.services, digest, "services"):
            self._wait(self.services, self.service_probes(), _SERVICES_SECONDS)
            return
        if "tensorflow_model_server" in wanted[-1].argv[0]:
            self.say(f"note: {wanted[-1].argv[0]} listens on all interfaces, not only on loopback")
        self._require_ports("redis", "s3", "tf_grpc", "tf_rest")
        self.services.start(wanted, {}, digest)
        self._wait(self.services, self.service_probes(), _SERVICES_SECONDS)

    def airflow_up(self, schedule: Schedule | None) -> bool:
        """Start Airflow unless it runs as it should; return whether it had to be started.

        With `schedule` None an Airflow that runs is left on the schedule it has.

        Raises:
            ConfigError: the port is taken, or `pipeline.yaml` is wrong.
            ServiceError: Airflow did not come up.
        """
        record = self.airflow.record() if self.airflow.is_running() else None
        schedule = schedule or (record.schedule if record else None) or "none"
        env = airflow_environment(self.home, self.secrets, schedule)
        wanted = commands.airflow_commands(self.home.port("airflow").number)
        digest = fingerprint(wanted, env)
        if self._is_current(self.airflow, digest, "Airflow"):
            self._wait(self.airflow, [self.airflow_probe()], _AIRFLOW_SECONDS)
            return False
        self._require_ports("airflow")
        self._migrate(env)
        self.airflow.start(wanted, env, digest, schedule)
        limit = load_pipeline_config(self.home.config).operations.heavy_tasks
        self.say(f"capacity      {describe(limit)}")
        self._wait(self.airflow, [self.airflow_probe()], _AIRFLOW_SECONDS)
        return True

    def down(self) -> None:
        """Stop Airflow, then the services; their data stay."""
        for group, label in ((self.airflow, "Airflow"), (self.services, "services")):
            self.say(f"{label}: {'stopped' if group.stop() else 'not running'}")

    def remove(self) -> None:
        """Stop everything and remove data, logs and secrets, but nothing that is not ours."""
        self.down()
        home = self.home
        for folder in (home.lake, home.redis, home.objects, home.models, home.airflow, home.logs):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(home.run, ignore_errors=True)
        for file in (home.secrets_file, home.environment_file):
            file.unlink(missing_ok=True)
        if home.root.exists() and any(home.root.iterdir()):
            self.say(f"{home.root}: kept, it holds files that are not Ferry's")
        elif home.root.exists():
            home.root.rmdir()
            self.say(f"{home.root}: removed")

    def _is_current(self, group: Group, digest: str, label: str) -> bool:
        """Return whether the group runs as wanted; stop it, or its remains, if not."""
        record = group.record()
        if record and record.fingerprint == digest and group.is_running():
            return True
        if group.stop():
            self.say(f"{label}: were running with other settings, or not whole; started again")
        return False

    def _require_ports(self, *services: str) -> None:
        for service in services:
            number, variable = self.home.port(service)
            if not health.port_is_free(number):
                raise ConfigError(
                    f"port {number} is taken{health.owner_of(number)}: choose another one with "
                    f"{variable}=…, or move all of them with FERRY_PORT_BASE=…"
                )

    def _wait(self, group: Group, probes: Sequence[Probe], seconds: float) -> None:
        for probe in probes:
            began = time.monotonic()
            if not health.wait_until(probe.answers, seconds, group.is_running):
                name = group.first_to_stop() or probe.name
                message = _explain(group, name, probe, time.monotonic() - began)
                group.stop()
                raise ServiceError(message)
            took = time.monotonic() - began
            label = "airflow" if group is self.airflow else probe.name
            self.say(f"{label:<13} {probe.address}" + (f"  ({took:.0f}s)" if took >= 1 else ""))
        group.note_members()

    def _migrate(self, env: dict[str, str]) -> None:
        """Create or update Airflow's database, once for each version of Airflow."""
        stamp = self.home.airflow / "migrated"
        current = version("apache-airflow")
        if stamp.exists() and stamp.read_text() == current:
            return
        self.say("airflow       preparing its database")
        log = self.home.logs / "airflow-migrate.log"
        with log.open("wb") as output:
            done = subprocess.run(
                [commands.airflow_program(), "db", "migrate"],
                env={**process_environment(), **env},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if done.returncode:
            raise ServiceError(f"'airflow db migrate' failed:\n{_tail(log)}")
        stamp.write_text(current)


def _explain(group: Group, name: str, probe: Probe, seconds: float) -> str:
    log = group.log(name)
    problem = (
        f"{name} did not answer at {probe.address} within {seconds:.0f}s"
        if group.is_running()
        else f"{name} stopped while starting"
    )
    return f"{problem}; its log {log} ends with:\n{_tail(log)}"


def _tail(log: Path) -> str:
    if not log.exists():
        return "  (nothing)"
    lines = log.read_text(errors="replace").splitlines()[-_LOG_LINES_SHOWN:]
    return "\n".join(f"  {line}" for line in lines)
