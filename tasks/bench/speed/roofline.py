"""What this machine does at best: a large matrix product, and a copy in memory, timed beside the contenders."""

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F

from nautile.tasks.bench.speed.memory import CPU
from nautile.tasks.bench.speed.results import Roof
from nautile.tasks.bench.speed.timing import Spread, Timing

PRODUCT, GPU_PRODUCT, TINY_PRODUCT = (2048, 1024, 4096), (8192, 8192, 8192), (64, 64, 64)  # tokens, width in, width out
COPIED, GPU_COPIED, TINY_COPIED = 128 << 20, 1 << 30, 1 << 20  # bytes: more than any cache holds
GEMM, COPY = "matrix product", "copy"


class Roofline:
    """Two more contenders, `probes`, and what their times say of the others.

    However it is computed, work of so many FLOPs on so many bytes takes at least the FLOPs at the rate of the product,
    or the bytes at the rate of the copy, whichever is longer. A pure read can be somewhat faster than a copy.
    """

    def __init__(self, dtype: torch.dtype, tiny: bool = False, device: torch.device = CPU) -> None:
        product, copied = (GPU_PRODUCT, GPU_COPIED) if device.type == "cuda" else (PRODUCT, COPIED)
        tokens, width, out = TINY_PRODUCT if tiny else product
        x, weight = (torch.randn(rows, width, device=device).to(dtype) for rows in (tokens, out))
        source = torch.ones(TINY_COPIED if tiny else copied, dtype=torch.uint8, device=device)
        target = torch.empty_like(source)
        self.flops, self.bytes = 2 * tokens * width * out, 2 * source.nbytes
        self.probes: dict[str, Callable[[], object]] = {
            GEMM: lambda: F.linear(x, weight),
            COPY: lambda: target.copy_(source),
        }

    def roof(self, timings: Mapping[str, Timing], seconds: Sequence[float], flops: float, read: float) -> Roof:
        """The roof over a contender that took `seconds` in rounds in which the probes took those of `timings`.

        `flops` and `read` (bytes) are what one call of it needs at the least.
        """
        gemm, copy = timings[GEMM].seconds, timings[COPY].seconds
        probed = zip(gemm, copy, strict=True)
        least = [max(flops / self.flops * product, read / self.bytes * copied) for product, copied in probed]
        return Roof(
            share=Spread.of([best / real for best, real in zip(least, seconds, strict=True)]),
            gemm=Spread.of([self.flops / one / 1e9 for one in gemm]),
            bandwidth=Spread.of([self.bytes / one / 1e9 for one in copy]),
        )
