"""RMSNorm, and the one with a gate that ends SCA's step 6. Both compute in float32."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RMSNorm(nn.RMSNorm):
    """Torch's, but on a CPU in bfloat16 several times as fast: torch computes that piece by piece."""

    def forward(self, x: Tensor) -> Tensor:
        """The same shape and type as x."""
        if x.dtype != torch.bfloat16 or x.device.type != "cpu" or self.eps is None:
            return super().forward(x)
        return (unit_rms(x, self.eps) * self.weight).to(x.dtype)


class GatedRMSNorm(nn.Module):
    """RMSNorm(o · silu(gate)) · weight over the last dimension. Paper: step 6."""

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, o: Tensor, gate: Tensor) -> Tensor:
        """O and gate of the same shape; the result has gate's dtype."""
        return (unit_rms(o.float() * F.silu(gate.float()), self.eps) * self.weight.float()).to(gate.dtype)


def unit_rms(x: Tensor, eps: float) -> Tensor:
    """x, in float32, over its root mean square in the last dimension."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    return x.float() * torch.rsqrt(norm.square() / x.shape[-1] + eps)
