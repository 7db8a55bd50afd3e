from __future__ import annotations

import pytest

from pipelines.config import PipelineConfig, load_pipeline_config
from pipelines.release.context import ReleaseContext


@pytest.fixture
def config(tables_only: ReleaseContext) -> PipelineConfig:
    return load_pipeline_config(tables_only.settings.config)
