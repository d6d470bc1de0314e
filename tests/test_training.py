from pathlib import Path

import pytest
import torch

from nautile.model.config import NautileConfig
from nautile.model.heads import NautileForSequenceClassification
from nautile.tasks.heads.sentiment_data import NEGATIVE, NEUTRAL, POSITIVE, polarity
from nautile.tasks.training import Batch, Run, Sample, Schedule, allowed_loss, batches_without_end

SCHEDULE = Schedule(steps=12, batch_tokens=64, max_length=16, save_every=4, learning_rate=1e-2)
ALL = (True, True, True)


def samples() -> list[Sample]:
    return [Sample([10 + n % 7, 20 + n % 3, 30, 9, 11, 12, 13, 14, 15 + n], n % 3, ALL) for n in range(40)]


def model() -> NautileForSequenceClassification:
    torch.manual_seed(0)
    config = NautileConfig.preset("nautile-mini", vocab_size=96, d_model=32, num_layers=3, d_ff=32, num_labels=3)
    return NautileForSequenceClassification(config)


class KilledError(RuntimeError):
    pass


def test_a_killed_run_ends_with_the_parameters_of_an_undisturbed_one(tmp_path: Path) -> None:
    whole = Run(model(), samples(), SCHEDULE, tmp_path / "whole")
    whole.train()
    killed = Run(model(), samples(), SCHEDULE, tmp_path / "killed")
    update = killed._update

    def dying(batch: Batch) -> float:
        if killed.step == 6:
            raise KilledError
        return update(batch)

    killed._update = dying  # type: ignore[method-assign]
    with pytest.raises(KilledError):
        killed.train()
    resumed = Run(model(), samples(), SCHEDULE, tmp_path / "killed")
    resumed.train()
    for name, parameter in whole.model.named_parameters():
        assert torch.equal(parameter, dict(resumed.model.named_parameters())[name]), name


def test_the_same_seed_gives_the_same_batches_and_every_sample_comes_once_an_epoch() -> None:
    plain = Schedule(batch_tokens=64, max_length=16, word_dropout=0)
    first, second = (batches_without_end(samples(), plain) for _ in range(2))
    epoch: list[Sample] = []
    while len(epoch) < 40:
        batch = next(first)
        assert batch == next(second)
        assert max(len(sample.ids) for sample in batch) * len(batch) <= 64
        epoch += batch
    assert sorted(epoch) == sorted(samples())


def test_a_label_that_was_no_choice_is_not_pushed_down() -> None:
    logits = torch.zeros(1, 3, requires_grad=True)
    batch = Batch(torch.ones(1, 1), torch.ones(1, 1), torch.tensor([POSITIVE]), torch.tensor([[True, False, True]]))
    allowed_loss(logits, batch).backward()
    assert logits.grad is not None
    assert logits.grad[0, NEUTRAL] == 0
    assert logits.grad[0, NEGATIVE] > 0


def test_polarity_of_rows() -> None:
    assert polarity({"label": "very negative"}) == NEGATIVE
    assert polarity({"label": "optimism"}) == POSITIVE
    assert polarity({"labels": ["joy", "gratitude"]}) == POSITIVE
    assert polarity({"labels": ["approval", "neutral"]}) == POSITIVE
    assert polarity({"labels": ["neutral"]}) == NEUTRAL
    assert polarity({"labels": ["joy", "anger"]}) is None
    assert polarity({"labels": ["surprise"]}) is None
