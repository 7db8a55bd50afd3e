"""A person's yes before a version goes live."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from ferry_tasks import (
    PLAN_TASK,
    ferry_task,
    nothing_to_do,
    skip_if_unchanged,
    skip_unless_planned,
)

from pipelines.config import OperationsConfig
from pipelines.errors import FerryError
from pipelines.models_config import Unit

_APPROVE, _REJECT = "Approve", "Reject"


class ReleaseApproval(HITLOperator):
    """Asks whether a unit's staged version may go live, if the run's form wants that.

    Not Airflow's own ApprovalOperator: that one skips what comes next without a word, and here
    `activate` and the run's summary say who rejected the version.
    """

    def __init__(self, *, unit: Unit, operations: OperationsConfig, **kwargs: Any) -> None:
        super().__init__(
            subject=f"{unit}: may this version go live?",
            options=[_APPROVE, _REJECT],
            defaults=_APPROVE if operations.approval_default == "approve" else _REJECT,
            response_timeout=timedelta(hours=operations.approval_hours),
            # It would race with the time to respond.
            execution_timeout=None,
            **kwargs,
        )
        self.unit = unit

    def execute(self, context: Any) -> Any:
        """Ask, with metrics and gates; skipped if nobody is to be asked."""
        plan = context["ti"].xcom_pull(task_ids=PLAN_TASK)
        skip_unless_planned(plan, self.unit)
        if reason := nothing_to_do(context):
            raise AirflowSkipException(reason)
        skip_if_unchanged(plan, self.unit)
        if not context["params"]["approval"]:
            raise AirflowSkipException("the run was started without asking for approval")
        if plan["run_type"] == "backfill":
            raise AirflowSkipException("nobody is asked in a backfill")
        with ferry_task() as settings:
            from pipelines import operations
            from pipelines.run import RunPlan
            from pipelines.steps import units

            run_plan = RunPlan.model_validate(plan)
            # Whatever was answered, it would not go live: one that was rejected before, say.
            if reason := units.release_refusal(settings, run_plan, self.unit):
                raise AirflowSkipException(reason)
            self.body = operations.approval_text(settings, run_plan, self.unit)
        return super().execute(context)

    def execute_complete(self, context: Any, event: dict[str, Any]) -> Any:
        """Take the answer; a no is kept with the version, and `activate` finds it there."""
        answer = super().execute_complete(context, event)
        user = answer["responded_by_user"]
        if answer["chosen_options"] == [_REJECT]:
            how = f"rejected by {user['name']}" if user else "rejected: nobody answered in time"
            with ferry_task() as settings:
                from pipelines import operations
                from pipelines.run import RunPlan

                plan = RunPlan.model_validate(context["ti"].xcom_pull(task_ids=PLAN_TASK))
                try:
                    operations.reject(settings, plan, self.unit, how)
                except FerryError as error:
                    # A retry would ask again, and its default might be a yes.
                    raise AirflowFailException(f"{how}, but that was not kept: {error}") from error
        return answer
