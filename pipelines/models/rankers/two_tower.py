"""Two towers (Yi et al. 2019): a vector of the user and one of the item, met by a dot product.

Neither tower sees the other's inputs, so that each is served by itself as well: item vectors can
be computed ahead and searched for the nearest ones to a user's.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from pipelines.models.rankers.encoded import HISTORY, ITEM, NUMBERS_IN, OF_ITEM, OF_USER, USER
from pipelines.models.rankers.inputs import vectors
from pipelines.models.rankers.layers import perceptron
from pipelines.models.rankers.samples import Statistics
from pipelines.models_config import TwoTowerConfig

USER_TOWER, ITEM_TOWER = "user_tower", "item_tower"
#: The encoded inputs of each tower. Of the numbers each reads its own half.
TOWERS = {
    USER_TOWER: (USER, OF_USER, HISTORY, NUMBERS_IN),
    ITEM_TOWER: (ITEM, OF_ITEM, NUMBERS_IN),
}


def network(
    inputs: dict[str, Any], statistics: Statistics, config: TwoTowerConfig, seed: int
) -> keras.Model:
    """Return the untrained network, with a model for each tower in it, by the tower's name.

    A tower's vector has ``config.vector_size`` components and two more: its own bias beside the
    other's 1, so that the dot product is all there is to the score.
    """
    known = vectors(inputs, statistics, config, seed)

    def tower(parts: list[Any], name: str, bias_first: bool) -> keras.Model:
        hidden = perceptron(ops.concatenate(parts, axis=1), config.hidden, config.dropout, seed)
        vector = keras.layers.Dense(config.vector_size)(hidden)
        bias = keras.layers.Dense(1)(hidden)
        ends = [bias, ops.ones_like(bias)]
        vector = ops.concatenate([vector, *(ends if bias_first else ends[::-1])], axis=1)
        return keras.Model({i: inputs[i] for i in TOWERS[name]}, vector, name=name)

    towers = {
        USER_TOWER: tower(known.of_user, USER_TOWER, bias_first=True),
        ITEM_TOWER: tower(known.of_item, ITEM_TOWER, bias_first=False),
    }
    user, item = (
        model({name: inputs[name] for name in TOWERS[which]}) for which, model in towers.items()
    )
    return keras.Model(inputs, ops.sigmoid(ops.sum(user * item, axis=1)))
