"""DIEN's own parts: real negatives, attention without padding, the attentional gate."""

from __future__ import annotations

import numpy as np
import pytest


def test_the_auxiliary_loss_has_real_negatives_and_ignores_padding() -> None:
    import keras

    from pipelines.models.rankers.dien import AuxiliaryLoss

    rng = np.random.default_rng(0)
    states, history = (rng.normal(size=(3, 4, 2)).astype("float32") for _ in range(2))
    ids = np.array([[0, 2, 3, 4], [0, 0, 5, 6], [7, 8, 9, 10]])
    present = (ids != 0).astype("float32")
    layer = AuxiliaryLoss(1.0, seed=1)
    loss = float(layer._loss(states, history, present, ids))
    changed = np.where(present[..., None] > 0, states, 1e3).astype("float32")
    assert float(AuxiliaryLoss(1.0, seed=1)._loss(changed, history, present, ids)) == loss
    assert loss > 0

    # All histories are of one item: there is no negative, and only the positives count.
    same = np.full((3, 4), 2)
    ones = np.ones((3, 4), "float32")
    alone = float(AuxiliaryLoss(1.0, seed=1)._loss(states, history, ones, same))
    logits = (states[:, :-1] * history[:, 1:]).sum(-1)
    assert alone == pytest.approx(np.log1p(np.exp(-logits)).mean(), rel=1e-5)

    outputs = layer(states, history, present, ids, training=False)
    assert np.array_equal(np.asarray(outputs), states)
    assert layer.losses == []
    layer(states, history, present, ids, training=True)
    assert len(layer.losses) == 1
    keras.backend.clear_session()


def test_attention_is_a_distribution_over_what_is_there() -> None:
    from pipelines.models.rankers.dien import CandidateAttention

    rng = np.random.default_rng(0)
    states = rng.normal(size=(2, 3, 4)).astype("float32")
    present = np.array([[0, 1, 1], [0, 0, 0]], "float32")
    weights = np.asarray(
        CandidateAttention()(rng.normal(size=(2, 5)).astype("float32"), states, present)
    )
    assert weights[0].sum() == pytest.approx(1.0, abs=1e-6)
    assert weights[0, 0] == 0.0
    assert weights[1].tolist() == [0.0, 0.0, 0.0]


def test_without_attention_the_state_stays() -> None:
    from pipelines.models.rankers.dien import AttentionalGruCell

    cell = AttentionalGruCell(3)
    state = np.array([[0.1, 0.2, 0.3]], "float32")
    step = np.array([[1.0, 2.0, 3.0, 0.0]], "float32")
    output, (new,) = cell(step, [state])
    assert np.asarray(output) == pytest.approx(state)
    assert np.asarray(new) == pytest.approx(state)
    step[0, -1] = 1.0
    assert np.asarray(cell(step, [state])[0]) != pytest.approx(state)
