"""The architecture in numbers, free of any framework: PyTorch and JAX build the model from the same object.

The legend of the model's shape letters, used as suffixes (`q_BLQHM`) in PyTorch and in JAX:

| letter | meaning                          | letter | meaning                                       |
|--------|----------------------------------|--------|-----------------------------------------------|
| B      | batch rows                       | K      | SCA memory heads                              |
| L      | tokens of a row                  | Q      | SCA query heads (the paper's K')              |
| S      | tokens that attention looks at   | H      | width of an SCA head                          |
| C      | tokens of a chunk                | M      | spectral points of a head                     |
| D      | width of the model               | N, G   | attention heads, key-value heads              |
| F      | width of the feed-forward layer  | P      | width of SCA's input projection               |
| V      | vocabulary                       | E      | width of an attention head                    |
| c      | taps of the convolution          | T      | tokens before a row: its tail, c - 1          |
| J      | real and imaginary parts: 2H of a head, 2KH of all | R | width of SCA's readout           |

X is any further dimension. What judges texts has a legend of its own, in `tasks/__init__.py`.
"""

from dataclasses import dataclass, fields
from typing import Any, Literal

from nautile.errors import NautileError

Decay = Literal["relative", "boundary"]

# What both frameworks compute with, as the paper's release does.
THETA_MIN, THETA_MAX = 0.001, 3.0  # the spectral grid, and where it starts
WEIGHT_CLIP = (1e-4, 5000.0)
MASS_FLOOR = 1e-4
QK_EPS = 1e-6
# Where parameters start.
EMBEDDING_STD = 0.02
DECAY_START = (0.001, 0.1)  # slopes of the decaying heads, geometric from the first to the last
ANCHOR_START = (0.01, 0.1)  # of the anchor heads


@dataclass
class Architecture:
    """A hybrid of SCA and attention layers; the defaults are nautile-mini's layers. Paper: section 2.1.

    `decay="boundary"` with `clip_weights` is the released model: the weight of a token fades with its distance to
    `maxlen`, then is clipped to [1e-4, 5000]. `decay="relative"` is the same recurrence in exact arithmetic, without
    clip and without a context limit. `pairs` is how many frequent pairs of neighbouring tokens have vectors of their
    own, added to the second token's (`pairs.py`; not in the paper, nor in JAX). nautile-mini has 65,536.
    """

    vocab_size: int = 32_008
    d_model: int = 256
    num_layers: int = 3
    attention_every: int = 3
    maxlen: int = 1024
    memory_heads: int = 8
    query_heads: int = 8
    spectral_points: int = 2
    expand: float = 2.0
    readout_expand: int = 3
    conv_kernel: int = 4
    anchor_heads: int = 0
    decay: Decay = "relative"
    clip_weights: bool = False
    num_heads: int = 4
    num_kv_heads: int = 2
    d_ff: int = 1536
    rope_base: float = 10_000.0
    norm_eps: float = 1e-6
    final_norm: bool = True
    pairs: int = 0

    def check(self) -> None:
        """Raise NautileError when the numbers contradict one another."""
        for field in fields(Architecture):
            value, least = getattr(self, field.name), 0 if field.name in ("anchor_heads", "pairs") else 1
            if field.type is int and (type(value) is not int or value < least):
                raise NautileError(
                    f"model configuration: {field.name} must be a whole number from {least}, not {value!r}"
                )
            if field.type is float and (type(value) not in (int, float) or not value > 0):
                raise NautileError(f"model configuration: {field.name} must be a number above 0, not {value!r}")
        rules = [
            (self.decay in ("relative", "boundary"), f"decay must be 'relative' or 'boundary', not {self.decay!r}"),
            (not self.clip_weights or self.decay == "boundary", "clip_weights needs decay='boundary'"),
            (self.memory_heads % self.query_heads == 0, "memory_heads must be a multiple of query_heads"),
            (self.num_heads % self.num_kv_heads == 0, "num_heads must be a multiple of num_kv_heads"),
            (self.d_model % (2 * self.num_heads) == 0, "d_model must be an even multiple of num_heads"),
            (0 <= self.anchor_heads <= self.memory_heads, "anchor_heads must lie between 0 and memory_heads"),
            (self.head_width > 0, "d_model * expand must be at least memory_heads * spectral_points"),
        ]
        for holds, problem in rules:
            if not holds:
                raise NautileError(f"model configuration: {problem}")

    @property
    def head_width(self) -> int:
        """H, the width of an SCA head."""
        return int(self.d_model * self.expand) // (self.memory_heads * self.spectral_points)

    @property
    def projection_width(self) -> int:
        """P = K·H keys + K scores + Q·H·M·2 query coordinates, the width that the convolution covers."""
        K, Q, H, M = self.memory_heads, self.query_heads, self.head_width, self.spectral_points
        return K * H + K + Q * H * M * 2

    @property
    def readout_width(self) -> int:
        """Width of all heads' readout, before it is projected back to D."""
        return self.memory_heads * self.readout_expand * self.head_width

    @property
    def attention_width(self) -> int:
        """E, the width of an attention head."""
        return self.d_model // self.num_heads

    @property
    def layer_kinds(self) -> list[Literal["sca", "attention"]]:
        """The kind of each layer: every `attention_every`-th is attention, the others are SCA."""
        return ["sca" if (n + 1) % self.attention_every else "attention" for n in range(self.num_layers)]

    def architecture(self) -> dict[str, Any]:
        """The fields of this class alone, also when a subclass has more."""
        return {field.name: getattr(self, field.name) for field in fields(Architecture)}


PRESETS: dict[str, dict[str, Any]] = {
    "nautile-mini": {},
    "nautile-370m": {
        "vocab_size": 100_300,
        "d_model": 1024,
        "num_layers": 24,
        "memory_heads": 16,
        "query_heads": 16,
        "num_heads": 16,
        "num_kv_heads": 4,
        "d_ff": 2730,
        "decay": "boundary",
        "clip_weights": True,
        "final_norm": False,
    },
}


def preset(name: str) -> dict[str, Any]:
    """The keyword arguments of a named architecture: "nautile-mini" or "nautile-370m"."""
    if name not in PRESETS:
        raise NautileError(f"unknown preset {name!r}; there are: {', '.join(PRESETS)}")
    return dict(PRESETS[name])
