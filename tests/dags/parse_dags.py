"""Parses the DAG files in a process of its own and prints what the tests look at, as JSON."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

HEAVY = ("tensorflow", "keras", "pyspark", "pandas", "numpy", "pyarrow", "boto3", "pypmml")


def main(folder: Path) -> None:
    import airflow.sdk  # noqa: F401 - its own import time is not the DAG files'
    from airflow.dag_processing.dagbag import DagBag

    # DagBag itself brings some of these along: only what the DAG files add counts.
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    seconds = {}
    for path in sorted(folder.glob("*.py")):
        # The processor's time: others may be at work on this machine.
        start = time.process_time()
        __import__(path.stem)
        seconds[path.name] = time.process_time() - start
    heavy = [name for name in HEAVY if name in sys.modules and name not in before]
    # After the clock: it costs the DAG file that uses it.
    from airflow.providers.standard.operators.hitl import HITLOperator

    bag = DagBag(dag_folder=str(folder), safe_mode=False)
    dags = {
        dag_id: {
            "tags": sorted(dag.tags),
            "doc": bool(dag.doc_md),
            "catchup": dag.catchup,
            "params": {name: dag.params.get_param(name).schema for name in dag.params},
            "defaults": {name: dag.params.get_param(name).value for name in dag.params},
            "paused_at_first": dag.is_paused_upon_creation,
            "max_active_runs": dag.max_active_runs,
            "timetable": type(dag.timetable).__name__,
            "downstream": {t.task_id: sorted(t.downstream_task_ids) for t in dag.tasks},
            "retries": {t.task_id: t.retries for t in dag.tasks},
            "timeouts": {
                t.task_id: t.execution_timeout.total_seconds() if t.execution_timeout else None
                for t in dag.tasks
            },
            "pool_slots": {t.task_id: t.pool_slots for t in dag.tasks},
            "at_once": {t.task_id: t.max_active_tis_per_dag for t in dag.tasks},
            "weights": {t.task_id: t.priority_weight for t in dag.tasks},
            "outlets": {t.task_id: [outlet.name for outlet in t.outlets] for t in dag.tasks},
            "deadlines": [
                str(alert.interval)
                for alert in (dag.deadline if isinstance(dag.deadline, list) else ())
            ],
            "response_seconds": {
                t.task_id: (t.response_timeout.total_seconds(), t.defaults)
                for t in dag.tasks
                if isinstance(t, HITLOperator) and t.response_timeout
            },
            "trigger_rules": {t.task_id: t.trigger_rule.value for t in dag.tasks},
        }
        for dag_id, dag in bag.dags.items()
    }
    print(  # noqa: T201
        json.dumps(
            {
                "errors": {str(k): str(v) for k, v in bag.import_errors.items()},
                "dags": dags,
                "heavy": heavy,
                "seconds": seconds,
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
