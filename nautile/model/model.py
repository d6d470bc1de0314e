"""The backbone as a model of transformers."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.utils import can_return_tuple
from transformers.utils.deprecation import deprecate_kwarg

from nautile.errors import NautileError
from nautile.model import blocks
from nautile.model.backbone import Backbone
from nautile.model.config import NautileConfig
from nautile.model.initialise import initialise
from nautile.model.state import NautileState
from nautile.model.vocabulary import rows_of

# What transformers called this argument before 5.24, and for as long as it takes that itself.
former_cache_name = deprecate_kwarg("past_key_values", "5.40.0", new_name="cache")


class NautilePreTrainedModel(PreTrainedModel):
    """What all Nautile models share: initialisation, gradient checkpointing, and the kind of state."""

    config: NautileConfig
    config_class = NautileConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["SCABlock", "AttentionBlock", "PairEmbedding"]  # noqa: RUF012
    _skip_keys_device_placement = ["cache"]  # noqa: RUF012
    _supports_sdpa = True
    _is_stateful = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        initialise(module, self.config)

    def _initialize_weights(self, module: nn.Module, is_custom_code: bool = False) -> None:
        super()._initialize_weights(module)  # as custom code, modules without parameters of their own are passed over

    def resize_token_embeddings(self, new_num_tokens: int | None = None, *args: Any, **kwargs: Any) -> nn.Module:
        """As transformers does it; texts are cut into the same pieces as before.

        Raises:
            NautileError: fewer tokens than the vocabulary has.
        """
        ranks = self.config.vocabulary_ranks
        least = rows_of(self.config.tokenizer_layout, ranks)
        if new_num_tokens is not None and new_num_tokens < least:
            raise NautileError(f"{new_num_tokens:,} tokens are fewer than the vocabulary's {least:,}")
        found: nn.Module = super().resize_token_embeddings(new_num_tokens, *args, **kwargs)
        self.config.ranks = ranks
        return found

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False  # generate() starts from the state that forward() makes


class SCABlock(GradientCheckpointingLayer, blocks.SCABlock):
    """One that may forget what it computed until the gradients need it."""


class AttentionBlock(GradientCheckpointingLayer, blocks.AttentionBlock):
    """The same for attention."""


class NautileModel(Backbone, NautilePreTrainedModel):
    """The backbone, with all that transformers gives a model."""

    BLOCKS: ClassVar[dict[str, type[nn.Module]]] = {"sca": SCABlock, "attention": AttentionBlock}

    def __init__(self, config: NautileConfig) -> None:
        super(Backbone, self).__init__(config)  # transformers' way to begin
        self.build(config)
        self.gradient_checkpointing = False
        self.post_init()  # type: ignore[operator] # mypy takes it for what a module holds

    @former_cache_name
    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        cache: NautileState | None = None,
        inputs_embeds: Tensor | None = None,
        segment_ids: Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> BaseModelOutputWithPast:
        """See `Backbone.forward`; `output_attentions` is refused when true: peft and pipelines name it."""
        if output_attentions:
            raise NautileError("output_attentions: SCA layers have no attention maps, the others keep none")
        found = super().forward(
            input_ids, attention_mask, cache, inputs_embeds, segment_ids, use_cache, output_hidden_states
        )
        return BaseModelOutputWithPast(**found._asdict())

    def _check_state(self, state: NautileState, batch: int, segment_ids: Tensor | None) -> None:
        super()._check_state(state, batch, segment_ids)
        if self.training and any(block.gradient_checkpointing for block in self.blocks):
            raise NautileError("gradient checkpointing cannot keep a state: call model.eval(), or leave the state out")
