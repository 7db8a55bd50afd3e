from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import ConfigError
from pipelines.release.rules import activation_refusal, known_unit, previous_of, retained
from pipelines.run import ActivateMode, make_version, parse_version

versions = st.integers(1, 2**53)
days = st.dates(date(1970, 1, 1), date(9999, 12, 31))
attempts = st.integers(1, 9999)


@pytest.mark.parametrize(
    ("version", "live", "mode", "withdrawn", "gates", "reason"),
    [
        (2, None, "if_newest", {}, None, None),
        (2, 1, "if_newest", {}, None, None),
        (2, 2, "if_newest", {}, None, None),
        (1, 2, "if_newest", {}, None, "version 1 is older than 2, which is live"),
        (1, 2, "always", {}, None, None),
        (3, 2, "never", {}, None, "asked to leave alone"),
        (3, None, "never", {}, None, "asked to leave alone"),
        (3, 2, "if_newest", {3: "wrong prices"}, None, "3 was withdrawn: wrong prices"),
        (3, 2, "always", {3: "wrong prices"}, None, "only 'ferry rollback --to 3'"),
        (3, 2, "if_newest", {4: "wrong prices"}, None, None),
        (3, 2, "always", {}, "auc 0.4", "version 3 was refused by its gates: auc 0.4"),
    ],
)
def test_what_may_go_live(
    version: int,
    live: int | None,
    mode: ActivateMode,
    withdrawn: dict[int, str],
    gates: str | None,
    reason: str | None,
) -> None:
    said = activation_refusal(version, live, mode=mode, withdrawn=withdrawn, gates=gates)
    if reason is None:
        assert said is None
    else:
        assert reason in (said or "")


@pytest.mark.parametrize(
    ("version", "mode", "reason"),
    [
        (1, "if_newest", "version 1 is older than 2, which was live until it was retired"),
        (1, "always", None),
        (3, "if_newest", None),
        (3, "never", "asked to leave alone"),
    ],
)
def test_what_may_go_live_of_a_retired_unit(
    version: int, mode: ActivateMode, reason: str | None
) -> None:
    said = activation_refusal(version, None, mode=mode, retired=2, withdrawn={2: "wrong prices"})
    assert (said is None) == (reason is None)
    assert (reason or "") in (said or "")


@pytest.mark.parametrize("mode", ["if_newest", "always", "never"])
def test_what_a_person_rejected_goes_live_by_no_run(mode: ActivateMode) -> None:
    said = activation_refusal(3, 2, mode=mode, rejected="rejected by Ann")
    assert said == "version 3 was rejected by Ann; only 'ferry rollback --to 3' makes it live"


@given(versions, st.none() | versions, st.sampled_from(["if_newest", "always", "never"]))
def test_only_always_lets_an_older_version_go_live(
    version: int, live: int | None, mode: ActivateMode
) -> None:
    allowed = activation_refusal(version, live, mode=mode) is None
    is_older = live is not None and version < live
    assert allowed == (mode == "always" or (mode == "if_newest" and not is_older))


@given(days, attempts, days, attempts)
def test_versions_are_ordered_by_date_then_attempt(
    day: date, attempt: int, other_day: date, other: int
) -> None:
    left, right = make_version(day, attempt), make_version(other_day, other)
    assert (left < right) == ((day, attempt) < (other_day, other))
    assert parse_version(left) == (day, attempt)
    assert left < 2**53, "a reader that has only doubles must be able to compare versions"


@given(versions, st.lists(versions, unique=True))
def test_after_a_rollback_the_next_one_goes_to_the_newest_older_version(
    version: int, was_live: list[int]
) -> None:
    older = [v for v in was_live if v < version]
    assert previous_of(version, was_live, is_rollback=True) == max(older, default=None)


@given(versions, st.lists(versions, unique=True))
def test_after_a_release_a_rollback_goes_to_what_was_live_just_before(
    version: int, was_live: list[int]
) -> None:
    others = [v for v in was_live if v != version]
    assert previous_of(version, was_live, is_rollback=False) == (others[-1] if others else None)


@given(
    st.sets(versions, max_size=30),
    st.sets(versions, max_size=3),
    st.data(),
    st.integers(1, 10),
    st.integers(1, 20),
)
def test_retention_keeps_what_is_needed_and_newer_and_no_more_than_asked(
    sealed: set[int], others: set[int], data: st.DataObject, online: int, stored: int
) -> None:
    live = data.draw(st.none() | st.sampled_from(sorted(sealed)) if sealed else st.none())
    needed = {*others, *([live] if live else [])}
    kept = retained(sorted(sealed), needed, live, online=online, stored=stored)
    assert kept.online <= kept.stored <= sealed
    if live is None:
        assert kept.online == sealed
        return
    protected = {v for v in sealed if v in needed or v >= live}
    assert protected <= kept.online
    newest = sorted(sealed, reverse=True)
    assert kept.online == protected | set(newest[:online])
    assert kept.stored == kept.online | set(newest[:stored])
    # What goes is older than everything unprotected that stays.
    gone, stays = sealed - kept.stored, kept.stored - protected
    assert not gone or not stays or max(gone) < min(stays)


def test_a_typo_is_answered_with_the_nearest_unit() -> None:
    assert known_unit("recs") == "recs"
    with pytest.raises(ConfigError, match="no unit 'rec': did you mean recs"):
        known_unit("rec")
    with pytest.raises(ConfigError, match="did you mean embedding_mlp"):
        known_unit("embeding-mlp")
    with pytest.raises(ConfigError, match=r"no unit 'xyz': units are recs, embeddings"):
        known_unit("xyz")
