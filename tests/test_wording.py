from __future__ import annotations

import pytest

from pipelines.wording import age


@pytest.mark.parametrize(
    ("days", "text"),
    [
        (-1, "a day that is not over yet"),
        (0, "a day that is not over yet"),
        (1, "1 day old"),
        (2000, "2,000 days old"),
    ],
)
def test_the_age_of_data(days: int, text: str) -> None:
    assert age(days) == text
