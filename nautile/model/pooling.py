"""From the hidden states of tokens to one vector a text."""

import torch
from torch import Tensor


def pool(hidden_BLD: Tensor, attention_mask: Tensor | None, pooling: str) -> Tensor:
    """One vector (B,D) a row: the mean over its real tokens, or the rightmost real one; zeros for an empty row."""
    B, L, _ = hidden_BLD.shape
    if attention_mask is None:
        real_BL = torch.ones(B, L, dtype=torch.bool, device=hidden_BLD.device)
    else:
        real_BL = attention_mask[:, -L:] != 0
    if pooling == "mean":
        share_BL = real_BL / real_BL.sum(1, keepdim=True).clamp(min=1)
        return (share_BL[..., None] * hidden_BLD).sum(1).to(hidden_BLD.dtype)
    step_L = torch.arange(L, device=hidden_BLD.device)
    last_B = (real_BL * step_L).argmax(1)
    return hidden_BLD[torch.arange(B, device=last_B.device), last_B] * real_BL.any(1, keepdim=True)
