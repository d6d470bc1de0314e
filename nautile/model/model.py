"""The backbone as a transformers model: embedding, blocks, and a last norm if there is one. Paper: section 2.1."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.utils import can_return_tuple
from transformers.utils.deprecation import deprecate_kwarg

from nautile.errors import NautileError
from nautile.model.attention import rotary, visible_keys
from nautile.model.blocks import AttentionBlock, SCABlock
from nautile.model.config import NautileConfig
from nautile.model.initialise import initialise
from nautile.model.layout import Layout, lay_out
from nautile.model.pairs import PairEmbedding, ids_before, last_ids
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


class NautileModel(NautilePreTrainedModel):
    """The backbone: embedding, blocks, and a last norm if the configuration has one."""

    def __init__(self, config: NautileConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.d_model)
        self.embed_pairs = PairEmbedding(config.pairs, config.d_model) if config.pairs else None
        self.blocks = nn.ModuleList(
            (SCABlock if kind == "sca" else AttentionBlock)(config, index)
            for index, kind in enumerate(config.layer_kinds)
        )
        self.norm = nn.RMSNorm(config.d_model, eps=config.norm_eps) if config.final_norm else nn.Identity()
        self.gradient_checkpointing = False
        self.post_init()

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
        """Hidden states (B,L,D) of all tokens.

        Args:
            input_ids: (B,L) ids, or give `inputs_embeds` (B,L,D), which a model with pairs refuses.
            attention_mask: (B,L), or (B, past + L), 1 for real tokens; padding may stand anywhere.
            cache: the state of what came before; it is advanced in place.
            segment_ids: (B,L), 1, 2, 3 … for documents packed into a row, 0 for padding; without mask and state.
            use_cache: return the state; by default only where one was given (a forward pass keeps nothing).
            output_hidden_states: also return the inputs of all layers and the last output.
            output_attentions: refused when true; peft and pipelines name it.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise NautileError("give either input_ids or inputs_embeds")
        if output_attentions:
            raise NautileError("output_attentions: SCA layers have no attention maps, the others keep none")
        if inputs_embeds is not None and self.embed_pairs is not None:
            raise NautileError("inputs_embeds: this model has vectors of token pairs as well, so give it input_ids")
        given = inputs_embeds if input_ids is None else input_ids
        assert given is not None
        B, L = given.shape[:2]
        if L == 0:
            raise NautileError("the input has no tokens: an empty text needs at least one padding token and a mask")
        state = NautileState(self.config) if cache is None and use_cache else cache
        if state is not None:
            self._check_state(state, B, segment_ids)
        past_B = None if state is None else state.lengths_B
        layout = lay_out(B, L, given.device, attention_mask, segment_ids, past_B)
        given = layout.compact(given)
        x_BLD = given if input_ids is None else self._embed(given, layout, state)
        x_BLD, hidden_states = self._run(x_BLD, layout, state, bool(output_hidden_states))
        if state is not None and self.embed_pairs is not None:
            state.last_B = last_ids(given, layout, state.last_B)
        return BaseModelOutputWithPast(
            last_hidden_state=layout.restore(x_BLD),
            cache=state,
            hidden_states=tuple(map(layout.restore, hidden_states)) if output_hidden_states else None,
        )

    def _embed(self, ids_BL: Tensor, layout: Layout, state: NautileState | None) -> Tensor:
        x_BLD: Tensor = self.embed_tokens(ids_BL)
        if self.embed_pairs is None:
            return x_BLD
        last_B = None if state is None else state.last_B
        return x_BLD + self.embed_pairs(ids_before(ids_BL, layout, last_B), ids_BL)

    def _check_state(self, state: NautileState, batch: int, segment_ids: Tensor | None) -> None:
        if segment_ids is not None:
            raise NautileError("packed rows leave no state: segment_ids go without cache and use_cache")
        if state.batch_size not in (-1, batch):
            raise NautileError(f"the state holds {state.batch_size} rows, the input {batch}: use branch() or gather()")
        if self.training and any(block.gradient_checkpointing for block in self.blocks):
            raise NautileError("gradient checkpointing cannot keep a state: call model.eval(), or leave the state out")

    def _run(
        self, x_BLD: Tensor, layout: Layout, state: NautileState | None, keep: bool
    ) -> tuple[Tensor, list[Tensor]]:
        B, L = x_BLD.shape[:2]
        rotation = rotary(layout.positions_BL, self.config.attention_width, self.config.rope_base)
        attending = rotation, visible_keys(B, L, layout, state)
        kept = []
        for block in self.blocks:
            if keep:
                kept.append(x_BLD)
            x_BLD = block(x_BLD, layout, attending, cache=state)
        if state is not None:
            state.advance(B, L, layout, x_BLD.device)
        x_BLD = self.norm(x_BLD)
        return x_BLD, [*kept, x_BLD] if keep else kept
