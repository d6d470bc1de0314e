"""How much arithmetic a token costs: the formula behind MFU and `plan`.

A matrix product of (m,k) and (k,n) counts 2·m·k·n. A training step counts three forward passes (one forward, two
backward); what rematerialisation computes again is not counted, as is usual for model FLOP utilisation.
"""

from nautile.model.architecture import Architecture
from nautile.pretraining.spectral import CHUNK


def parameters(a: Architecture) -> dict[str, int]:
    """Parameters of the embedding, of one SCA block and of one attention block, and of the whole model."""
    D, K, H, M, P = a.d_model, a.memory_heads, a.head_width, a.spectral_points, a.projection_width
    kv = 2 * a.num_kv_heads * a.attention_width
    sca = D * P + a.conv_kernel * P + K * H * M + K * H * M + 4 * K  # projection, conv, θ, ω, four scalars a head
    sca += D * 2 * K * H + 2 * K * H + K * 2 * H * 2 * a.readout_expand * H + a.readout_width * D + D
    attention = 2 * D * D + D * kv + D * 2 * a.d_ff + 2 * a.d_ff + a.d_ff * D + D + 2 * D
    count = {"sca": a.layer_kinds.count("sca"), "attention": a.layer_kinds.count("attention")}
    embedding = a.vocab_size * D
    whole = embedding + count["sca"] * sca + count["attention"] * attention + (D if a.final_norm else 0)
    return {"embedding": embedding, "sca": sca, "attention": attention, "whole": whole}


def forward_flops(a: Architecture, length: int) -> dict[str, float]:
    """FLOPs a token of a forward pass over rows of `length` tokens, by part; attention counts half the square."""
    D, K, H, M = a.d_model, a.memory_heads, a.head_width, a.spectral_points
    kv = 2 * a.num_kv_heads * a.attention_width
    projections = D * a.projection_width + D * 2 * K * H + K * 2 * H * 2 * a.readout_expand * H + a.readout_width * D
    memory = min(CHUNK, length) * K * (2 * H * M + 1)  # the product inside a chunk: C rows of 2HM + 1 sums a head
    sca, attention = a.layer_kinds.count("sca"), a.layer_kinds.count("attention")
    return {
        "SCA projections": 2.0 * sca * projections,
        "SCA memory": 2.0 * sca * (memory + a.conv_kernel * a.projection_width),
        "attention projections": 2.0 * attention * (2 * D * D + D * kv),
        "attention scores": 2.0 * attention * (2 * D * length / 2),
        "feed-forward": 2.0 * attention * 3 * D * a.d_ff,
        "logits": 2.0 * D * a.vocab_size,
    }


def training_flops(a: Architecture, length: int) -> float:
    """FLOPs a token of a training step: three forward passes."""
    return 3 * sum(forward_flops(a, length).values())
