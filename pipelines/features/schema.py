"""The names and kinds of all features: the contract between feature jobs, models and serving.

The list is SparrowRecSys's, with one change that matters: every value is computed only from
events strictly earlier than the sample's own. Each feature is one column of the samples, one
input of the SavedModel and one field of the PMML.

Missing values: null in Parquet. At the edges without a null (SavedModel inputs) a missing number
is NaN and a missing category or id is the empty string; ids travel as their decimal or plain text,
so that any id, seen or not, int64 or string, takes the same path.
"""

from __future__ import annotations

from typing import Final

USER_ID: Final = "user_id"
ITEM_ID: Final = "item_id"
RATING: Final = "rating"
TIMESTAMP: Final = "timestamp"
LABEL: Final = "label"
IS_HOLDOUT: Final = "is_holdout"
#: The last part of what is not holdout, cut as the holdout was: to choose when to stop training.
IS_VALIDATION: Final = "is_validation"

#: Latest positively rated items before the sample, newest first.
USER_RECENT_ITEMS: Final = tuple(f"user_rated_{i}" for i in range(1, 6))
#: The same and more of them, as one list: what sequence models read. No null, no null inside.
USER_HISTORY: Final = "user_history"
#: The user's most frequent genres among earlier positives, most frequent first.
USER_GENRES: Final = tuple(f"user_genre_{i}" for i in range(1, 6))
USER_NUMBERS: Final = (
    "user_rating_count",
    "user_rating_mean",
    "user_rating_stddev",
    "user_release_year_mean",
    "user_release_year_stddev",
)
#: The item's first three genres.
ITEM_GENRES: Final = tuple(f"item_genre_{i}" for i in range(1, 4))
ITEM_NUMBERS: Final = (
    "release_year",
    "item_rating_count",
    "item_rating_mean",
    "item_rating_stddev",
)

USER_FEATURES: Final = (*USER_RECENT_ITEMS, *USER_NUMBERS, *USER_GENRES)
ITEM_FEATURES: Final = (*ITEM_NUMBERS, *ITEM_GENRES)
FEATURES: Final = (*USER_FEATURES, *ITEM_FEATURES)
NUMBERS: Final = (*USER_NUMBERS, *ITEM_NUMBERS)
GENRES: Final = (*USER_GENRES, *ITEM_GENRES)
#: The columns of the samples, in their order.
SAMPLE_COLUMNS: Final = (
    *(USER_ID, ITEM_ID, RATING, TIMESTAMP),
    *(LABEL, IS_HOLDOUT, IS_VALIDATION),
    *FEATURES,
    USER_HISTORY,
)
