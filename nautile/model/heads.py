"""The backbone with a head: language modelling, one label a text, one label a token."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import GenerationMixin
from transformers.modeling_outputs import (
    CausalLMOutputWithPast,
    SequenceClassifierOutputWithPast,
    TokenClassifierOutput,
)
from transformers.utils import can_return_tuple

from nautile.errors import NautileError
from nautile.model.config import NautileConfig
from nautile.model.fixed import FixedState
from nautile.model.graphs import in_fixed_places, step
from nautile.model.model import NautileModel, NautilePreTrainedModel, former_cache_name
from nautile.model.pooling import pool
from nautile.model.state import NautileState

IGNORED = -100


class NautileForCausalLM(NautilePreTrainedModel, GenerationMixin):
    """Next-token prediction; the output embedding is the input embedding."""

    accepts_loss_kwargs = True  # Trainer: forward takes num_items_in_batch
    _tied_weights_keys: ClassVar[dict[str, str]] = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config: NautileConfig) -> None:
        super().__init__(config)
        self.model = NautileModel(config)
        self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.post_init()

    @former_cache_name
    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        cache: NautileState | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        segment_ids: Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        num_items_in_batch: Tensor | int | None = None,
        output_attentions: bool | None = None,
    ) -> CausalLMOutputWithPast:
        """Logits (B,L,V), of the last `logits_to_keep` columns or of those that it lists; loss if there are `labels`.

        Labels (B,L; -100 is ignored) are shifted here; what follows padding or the end of a packed document is not
        predicted from it. Other arguments: see `NautileModel.forward`; `num_items_in_batch` divides the loss instead of
        their mean.
        """
        others = (labels, inputs_embeds, segment_ids, output_hidden_states or None, output_attentions or None)
        plain = all(other is None for other in others) and not torch.is_grad_enabled()
        if isinstance(cache, FixedState) and input_ids is not None and plain:
            return CausalLMOutputWithPast(logits=step(self, input_ids, attention_mask, cache), cache=cache)
        out = self.model(
            input_ids,
            attention_mask,
            cache,
            inputs_embeds,
            segment_ids,
            use_cache,
            output_hidden_states,
            output_attentions,
            return_dict=True,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(out.last_hidden_state[:, kept])
        loss = None
        if labels is not None:
            labels = predictable(labels, attention_mask, segment_ids)
            loss = self.loss_function(
                logits, labels, vocab_size=self.config.vocab_size, num_items_in_batch=num_items_in_batch
            )
        return CausalLMOutputWithPast(loss=loss, logits=logits, cache=out.cache, hidden_states=out.hidden_states)

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """As transformers does it.

        Raises:
            NautileError: a checkpoint of another kind: the output layer would be there, being tied, but never learned.
        """
        found = super().from_pretrained(*args, **kwargs)
        model = found[0] if isinstance(found, tuple) else found
        saved = model.config.architectures or [NautileForCausalLM.__name__]
        if NautileForCausalLM.__name__ not in saved:
            raise NautileError(f"{model.name_or_path}: a {saved[0]}, no language model; see its folder language/")
        return found

    def prepare_inputs_for_generation(self, input_ids: Tensor, **kwargs: Any) -> dict[str, Any]:
        """As transformers does it, with a state from the first step on, on a GPU one for `use_graphs()`."""
        if kwargs.get("use_cache") and kwargs.get("cache") is None:
            kwargs["cache"] = NautileState(self.config)
        inputs: dict[str, Any] = super().prepare_inputs_for_generation(input_ids, **kwargs)
        if inputs.get("cache") is not None and inputs.get("input_ids") is not None:
            inputs["cache"] = in_fixed_places(inputs["cache"], inputs["input_ids"], inputs.get("attention_mask"))
        return inputs


class NautileForSequenceClassification(NautilePreTrainedModel):
    """One vector a text, by `config.pooling`, then a linear layer to the labels."""

    def __init__(self, config: NautileConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.model = NautileModel(config)
        self.score = nn.Linear(config.d_model, config.num_labels)
        self.post_init()

    @former_cache_name
    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        cache: NautileState | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> SequenceClassifierOutputWithPast:
        """Logits (B, num_labels); padding may stand on either side, without a mask it is told by its id."""
        if attention_mask is None and input_ids is not None and self.config.pad_token_id is not None:
            attention_mask = (input_ids != self.config.pad_token_id).long()
        out = self.model(
            input_ids,
            attention_mask,
            cache,
            inputs_embeds,
            None,
            use_cache,
            output_hidden_states,
            output_attentions,
            return_dict=True,
        )
        logits = self.score(pool(out.last_hidden_state, attention_mask, self.config.pooling))
        loss = None
        if labels is not None:
            loss = self.loss_function(labels=labels, pooled_logits=logits, logits=logits, config=self.config)
        return SequenceClassifierOutputWithPast(
            loss=loss, logits=logits, cache=out.cache, hidden_states=out.hidden_states
        )


class NautileForTokenClassification(NautilePreTrainedModel):
    """A linear layer from each token's hidden state to the labels."""

    def __init__(self, config: NautileConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.model = NautileModel(config)
        self.score = nn.Linear(config.d_model, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        segment_ids: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> TokenClassifierOutput:
        """Logits (B, L, num_labels); labels (B,L), -100 is ignored."""
        out = self.model(
            input_ids,
            attention_mask,
            inputs_embeds=inputs_embeds,
            segment_ids=segment_ids,
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
            return_dict=True,
        )
        logits = self.score(out.last_hidden_state)
        loss = None if labels is None else self.loss_function(logits, labels, self.config)
        return TokenClassifierOutput(loss=loss, logits=logits, hidden_states=out.hidden_states)


def predictable(labels: Tensor, attention_mask: Tensor | None, segment_ids: Tensor | None) -> Tensor:
    """Labels (B,L) without those whose column before is padding or belongs to another packed document."""
    if attention_mask is None and segment_ids is None:
        return labels
    document_BL = segment_ids if attention_mask is None else attention_mask[:, -labels.shape[1] :]
    assert document_BL is not None
    before = document_BL[:, :-1]
    lost = before == 0
    if segment_ids is not None:
        lost = lost | (document_BL[:, 1:] != before)
    return labels.masked_fill(F.pad(lost, (1, 0)), IGNORED)
