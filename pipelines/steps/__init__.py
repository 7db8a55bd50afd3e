"""The steps of one run, as its tasks call them: each reads and leaves its part in the lake,
object storage or Redis, so that any of them can be run again by itself.

In their order: :mod:`~pipelines.steps.plan`, :mod:`~pipelines.steps.data` (ingest, features),
:mod:`~pipelines.steps.units` (build, stage, activate), :mod:`~pipelines.steps.ending` (report,
finish). What they hand over is in :mod:`~pipelines.steps.run_folder`.
"""
