"""The model a second time, in float64, straight from its equations and one sequence at a time. Slow; shares no code.

Letters as in `nautile.model.architecture`; T is the time of the token that is remembered.
"""

import torch
from torch import Tensor

THETA_MIN, THETA_SPAN = 0.001, 2.999
FLOOR, CLIP = 1e-4, (1e-4, 5000.0)


def softplus(x: Tensor) -> Tensor:
    return torch.logaddexp(x, torch.zeros_like(x))


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def silu(x: Tensor) -> Tensor:
    return x * sigmoid(x)


def rms_norm(x: Tensor, eps: float, scale: Tensor | float = 1.0) -> Tensor:
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps) * scale


def grid(raw_KHM: Tensor) -> Tensor:
    """θ, one spectral point after another."""
    M = raw_KHM.shape[-1]
    if M == 1:
        return THETA_MIN + THETA_SPAN * sigmoid(raw_KHM)
    delta = softplus(raw_KHM) + 1e-4
    partial = [delta[..., : m + 1].sum(-1) for m in range(M)]
    return torch.stack([THETA_MIN + THETA_SPAN * part / delta.sum(-1) for part in partial], dim=-1)


def measure(raw_QRHM: Tensor) -> Tensor:
    """ω of each memory head, (K,H,M): query head q serves the memory heads q·R to q·R + R-1."""
    positive = torch.exp(raw_QRHM)
    share = positive / (positive.sum(-1, keepdim=True) + 1e-6)
    return torch.stack([share[q, r] for q in range(share.shape[0]) for r in range(share.shape[1])])


def weights(s_LK: Tensor, p: dict[str, Tensor], decay: str, clip: bool, maxlen: int) -> tuple[Tensor, Tensor]:
    """α_LK without the fading, and the fading λ_K of the sums."""
    gate = softplus(p["score_scale"] * s_LK + p["score_bias"])
    columns, fades = [], []
    times = torch.arange(s_LK.shape[0], dtype=torch.float64)
    for head in range(s_LK.shape[1]):
        anchor = head - len(p["decay_slopes"])
        fade = torch.zeros((), dtype=torch.float64)
        if anchor >= 0:
            column = gate[:, head] * torch.exp(-softplus(p["anchor_slopes"][anchor]) * times)
        elif decay == "boundary":
            distance = torch.clamp(maxlen - 1 - times, min=0)
            column = gate[:, head] * torch.exp(-softplus(p["decay_slopes"][head]) * distance)
        else:
            column, fade = gate[:, head], softplus(p["decay_slopes"][head])
        columns.append(torch.clamp(column, *CLIP) if clip else column)
        fades.append(fade)
    return torch.stack(columns, dim=1), torch.stack(fades)


def memory(
    k_LKH: Tensor,
    w_LK: Tensor,
    q_LQHM2: Tensor,
    eta_K: Tensor,
    theta_KHM: Tensor,
    omega_KHM: Tensor,
    fade_K: Tensor,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Steps 3 to 5 as one complex recurrence: o (L,K,2H), and the last Z (K) and R + iI (K,H,M)."""
    K, H = k_LKH.shape[1:]
    u = eta_K[:, None] * k_LKH
    phase = (u / (1 + u.abs()))[..., None] * theta_KHM
    pulse = (w_LK[..., None] * k_LKH)[..., None] * torch.exp(1j * phase)
    keep = torch.exp(-fade_K)
    mass_K, state_KHM = torch.zeros_like(w_LK[0]), torch.zeros_like(pulse[0])
    masses, states = [], []
    for t in range(k_LKH.shape[0]):
        mass_K = keep * mass_K + w_LK[t]
        state_KHM = keep[:, None, None] * state_KHM + pulse[t]
        masses.append(mass_K)
        states.append(state_KHM)
    mean = torch.stack(states) / torch.clamp(torch.stack(masses), min=FLOOR)[..., None, None]
    serving = [head * q_LQHM2.shape[1] // K for head in range(K)]
    q = torch.complex(q_LQHM2[..., 0], q_LQHM2[..., 1])[:, serving]
    o = (omega_KHM * mean * q.conj()).sum(-1) / H**0.5
    return torch.cat([o.real, o.imag], dim=-1), (mass_K, state_KHM)


def convolve(z_LP: Tensor, kernel_P1c: Tensor) -> Tensor:
    """Causal and depthwise; the last tap meets the current token."""
    c = kernel_P1c.shape[-1]
    rows = []
    for t in range(z_LP.shape[0]):
        taps = [z_LP[t - back] * kernel_P1c[:, 0, c - 1 - back] for back in range(c) if t >= back]
        rows.append(torch.stack(taps).sum(0))
    return torch.stack(rows)


def sca(x_LD: Tensor, p: dict[str, Tensor], a) -> Tensor:
    K, Q, H, M = a.memory_heads, a.query_heads, a.head_width, a.spectral_points
    L = x_LD.shape[0]
    z = silu(convolve(x_LD @ p["in_proj.weight"].T, p["conv_weight"]))
    k, s, q = z[:, : K * H], z[:, K * H : K * H + K], z[:, K * H + K :]
    w, fade = weights(s, p, a.decay, a.clip_weights, a.maxlen)
    o, _ = memory(
        k.reshape(L, K, H),
        w,
        q.reshape(L, Q, H, M, 2),
        p["phase_scale"],
        grid(p["theta_raw"]),
        measure(p["w_int_raw"]),
        fade,
    )
    gated = rms_norm(o.reshape(L, -1) * silu(x_LD @ p["gate_proj.weight"].T), 1e-6, p["gated_norm.weight"])
    heads = []
    for head in range(K):
        y = gated[:, head * 2 * H : (head + 1) * 2 * H] @ p["readout"][head]
        v, g = y[:, : y.shape[1] // 2], y[:, y.shape[1] // 2 :]
        heads.append(v * sigmoid(g))
    return torch.cat(heads, dim=1) @ p["out_proj.weight"].T


def attention(x_LD: Tensor, p: dict[str, Tensor], a) -> Tensor:
    E, L = a.attention_width, x_LD.shape[0]
    angle = torch.arange(L, dtype=torch.float64)[:, None] / a.rope_base ** (
        torch.arange(E // 2, dtype=torch.float64) * 2 / E
    )

    def head(name: str, number: int, turned: bool) -> Tensor:
        x = x_LD @ p[f"{name}.weight"][number * E : (number + 1) * E].T
        if not turned:
            return x
        pair = torch.complex(x[:, : E // 2], x[:, E // 2 :]) * torch.exp(1j * angle)
        return rms_norm(torch.cat([pair.real, pair.imag], dim=-1), 1e-6)

    heads = []
    for n in range(a.num_heads):
        g = n // (a.num_heads // a.num_kv_heads)
        q, k, v = head("q_proj", n, True), head("k_proj", g, True), head("v_proj", g, False)
        rows = [torch.softmax(q[t] @ k[: t + 1].T / E**0.5, dim=-1) @ v[: t + 1] for t in range(L)]
        heads.append(torch.stack(rows))
    return torch.cat(heads, dim=1) @ p["out_proj.weight"].T


def feed_forward(x: Tensor, p: dict[str, Tensor]) -> Tensor:
    u, v = (x @ p["ff_in.weight"].T + p["ff_in.bias"]).chunk(2, dim=-1)
    return (silu(v) * u) @ p["ff_out.weight"].T + p["ff_out.bias"]


def below(parameters: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in parameters.items() if name.startswith(prefix)}


def logits(parameters: dict[str, Tensor], a, ids_L: Tensor) -> Tensor:
    """Logits (L,V) of one sequence; `parameters` are a NautileForCausalLM's, in float64."""
    table = parameters["model.embed_tokens.weight"]
    x = table[ids_L]
    for index in range(a.num_layers):
        p = below(parameters, f"model.blocks.{index}.")
        if (index + 1) % a.attention_every:
            x = x + sca(rms_norm(x, a.norm_eps, p["norm.weight"]), below(p, "sca."), a)
        else:
            x = x + attention(rms_norm(x, a.norm_eps, p["norm1.weight"]), below(p, "attention."), a)
            x = x + feed_forward(rms_norm(x, a.norm_eps, p["norm2.weight"]), below(p, "feed_forward."))
    if a.final_norm:
        x = rms_norm(x, a.norm_eps, parameters["model.norm.weight"])
    return x @ table.T
