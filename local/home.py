"""Where the embedded services live: one folder, a few ports, all on loopback."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from pipelines.config import PROJECT_ROOT, environment_file
from pipelines.errors import ConfigError

HOST = "127.0.0.1"
BUCKET = "ferry"
REGION = "us-east-1"

_PortNumber = Annotated[int, Field(ge=1, le=65535)]


class Port(NamedTuple):
    """A port, and the environment variable that changes it."""

    number: int
    variable: str


class Home(BaseSettings):
    """The folder of the embedded services and what a user may change about them.

    Everything is read from the environment, with the prefix ``FERRY_``.
    """

    model_config = SettingsConfigDict(env_prefix="FERRY_", extra="ignore", frozen=True)

    # The default lies below the range from which Linux takes the ports of outgoing connections.
    port_base: int = Field(18080, ge=1024, le=65530)
    airflow_port: _PortNumber | None = None
    redis_port: _PortNumber | None = None
    s3_port: _PortNumber | None = None
    tf_grpc_port: _PortNumber | None = None
    tf_rest_port: _PortNumber | None = None
    redis_maxmemory: str = Field("1gb", pattern=r"^\d+([kmg]b?)?$")
    dags_folder: Path = PROJECT_ROOT / "dags"
    config: Path = PROJECT_ROOT / "pipeline.yaml"
    spark_master: str = f"local[{len(os.sched_getaffinity(0))}]"

    @property
    def root(self) -> Path:
        """The folder that holds all data, logs and secrets (``FERRY_HOME``, or ``.ferry``)."""
        return environment_file().parent.absolute()

    @property
    def environment_file(self) -> Path:
        """What the ``ferry`` commands read."""
        return self.root / "env"

    @property
    def secrets_file(self) -> Path:
        """The generated secrets."""
        return self.root / "secrets.json"

    @property
    def lake(self) -> Path:
        """The root of the lake."""
        return self.root / "lake"

    @property
    def redis(self) -> Path:
        """Redis: its configuration and its append-only file."""
        return self.root / "redis"

    @property
    def objects(self) -> Path:
        """Object storage: one folder a bucket."""
        return self.root / "s3"

    @property
    def models(self) -> Path:
        """The model server's disk."""
        return self.root / "models"

    @property
    def models_config(self) -> Path:
        """The model server's configuration, which releases rewrite."""
        return self.models / "models.config"

    @property
    def airflow(self) -> Path:
        """AIRFLOW_HOME."""
        return self.root / "airflow"

    @property
    def logs(self) -> Path:
        """One log a service."""
        return self.root / "logs"

    @property
    def run(self) -> Path:
        """Procfiles, and the records of what is running."""
        return self.root / "run"

    def port(self, service: str) -> Port:
        """Return the port of `service`: airflow, redis, s3, tf_grpc or tf_rest."""
        offset = ("airflow", "redis", "s3", "tf_grpc", "tf_rest").index(service)
        number = getattr(self, f"{service}_port") or self.port_base + offset
        return Port(number, f"FERRY_{service.upper()}_PORT")

    def address(self, service: str) -> str:
        """Return ``host:port`` of `service`."""
        return f"{HOST}:{self.port(service).number}"

    def make_folders(self) -> None:
        """Create the folders; only their owner may look into them."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        bucket = self.objects / BUCKET
        for folder in (self.lake, self.redis, bucket, self.models, self.airflow, self.logs):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.run.mkdir(mode=0o700, exist_ok=True)


def load_home() -> Home:
    """Read the environment.

    Raises:
        ConfigError: a variable is malformed, or two services share a port; the message names it.
    """
    try:
        home = Home()
    except ValidationError as error:
        first = error.errors()[0]
        name = f"FERRY_{str(first['loc'][0]).upper()}"
        raise ConfigError(
            f"environment variable {name}: {first['msg']}, got {first['input']!r}"
        ) from error
    ports: dict[int, str] = {}
    for service in ("airflow", "redis", "s3", "tf_grpc", "tf_rest"):
        number, variable = home.port(service)
        if number in ports:
            raise ConfigError(f"{variable} and {ports[number]} are both {number}")
        ports[number] = variable
    return home


def write_private(path: Path, text: str) -> None:
    """Replace the file by `text` in one step; only its owner may read it (mode 600)."""
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    part.replace(path)
