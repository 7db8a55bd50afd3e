"""Building a version in object storage: files first, golden requests, the manifest last."""

from __future__ import annotations

import importlib.metadata
import subprocess
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipelines.config import PROJECT_ROOT
from pipelines.evaluation.gates import GateResult
from pipelines.models.base import Built
from pipelines.progress import progress
from pipelines.release.manifest import Golden, Manifest
from pipelines.release.registry import Registry
from pipelines.release.tables import PreparedTables
from pipelines.run import RunPlan


def publish(
    registry: Registry,
    plan: RunPlan,
    unit: str,
    built: Built,
    prepared: Sequence[PreparedTables],
    data: dict[str, Any],
    workdir: Path,
    gates: Sequence[GateResult] = (),
    champion: int | None = None,
    *,
    confirm: Callable[[], None] = lambda: None,
) -> Manifest:
    """Upload all of a build and seal it with the gates' verdicts; returns the manifest.

    Until the last request has succeeded the version does not exist; a crash before that leaves
    unsealed files, which the same run's next attempt overwrites or removes. `confirm` raises if
    another attempt has taken over: it is asked before every write, since a version that the other
    one has sealed must not change.
    """
    golden = Golden(tables=[t for p in prepared for t in p.golden], scores=built.golden)
    golden_path = workdir / "golden.json"
    golden_path.write_text(golden.model_dump_json(), encoding="utf-8")

    sources = [("golden.json", golden_path), *_files(built), *_table_files(prepared)]
    total = sum(path.stat().st_size for _, path in sources)
    entries = []
    with progress(f"upload {unit}", total, "bytes") as advance:
        for name, path in sources:
            confirm()
            key = registry.key(unit, plan.version, name)
            entries.append(registry.objects.upload(path, key, name, advance))
    confirm()
    registry.remove_strays(unit, plan.version, {entry.name for entry in entries})
    manifest = Manifest(
        unit=unit,
        version=plan.version,
        run_date=plan.run_date,
        run_type=plan.run_type,
        run_id=plan.run_id,
        created_at=datetime.now(UTC),
        code_version=code_version(),
        data=data,
        params=built.params,
        metrics=built.metrics,
        tables=[meta for p in prepared for meta in p.metas],
        files=sorted(entries, key=lambda entry: entry.name),
        champion=champion,
        gates=list(gates),
        calibration=built.calibration,
    )
    registry.seal(manifest)
    return manifest


def _files(built: Built) -> Iterator[tuple[str, Path]]:
    for name, path in built.files.items():
        if path.is_file():
            yield name, path
        else:
            for file in sorted(p for p in path.rglob("*") if p.is_file()):
                yield f"{name}/{file.relative_to(path).as_posix()}", file


def _table_files(prepared: Sequence[PreparedTables]) -> Iterator[tuple[str, Path]]:
    for tables in prepared:
        for meta in tables.metas:
            # Spark's own part names change with every write; ours are the same in a rerun, which
            # so overwrites what an unfinished attempt left.
            for number, path in enumerate(tables.parts(meta.name)):
                yield f"tables/{meta.name}/part-{number:05d}.parquet", path


def code_version() -> str:
    """Return Ferry's version and, in a git checkout, the commit."""
    version = importlib.metadata.version("ferry")
    commit = subprocess.run(
        ["git", "-C", str(PROJECT_ROOT), "rev-parse", "--short=12", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"{version}+{commit.stdout.strip()}" if commit.returncode == 0 else version
