"""Steps 3 and 5 on blocks of tokens and lanes, and their gradients."""

import triton
import triton.language as tl

from nautile.model.architecture import MASS_FLOOR

FLOOR = tl.constexpr(MASS_FLOOR)


@triton.jit
def encode(k: tl.tensor, w: tl.tensor, eta: tl.tensor, theta: tl.tensor) -> tl.tensor:
    """Step 3: what a token adds to Z, R and I. φ = softsign(η k) · θ."""
    phase = eta * k / (1 + tl.abs(eta * k)) * theta
    return w, w * k * tl.cos(phase), w * k * tl.sin(phase)


@triton.jit
def encode_back(k: tl.tensor, w: tl.tensor, eta: tl.tensor, theta: tl.tensor, d: tl.tensor) -> tl.tensor:
    """Gradients from those of `encode`'s results: of k, of w but for Z's share, of η k (all by lanes), and of θ."""
    _, d_re, d_im = d
    rest = 1 / (1 + tl.abs(eta * k))
    phase = eta * k * rest * theta
    cos, sin = tl.cos(phase), tl.sin(phase)
    along, turn = d_re * cos + d_im * sin, w * k * (d_im * cos - d_re * sin)
    d_argument = turn * theta * rest * rest
    return w * along + eta * d_argument, k * along, d_argument, turn * eta * k * rest


@triton.jit
def read(sums: tl.tensor, q_re: tl.tensor, q_im: tl.tensor, measure: tl.tensor) -> tl.tensor:
    """Step 5 in each lane, to be summed over the spectral points: o_re and o_im. `measure` is ω/√H."""
    z, re, im = sums
    weight = measure / tl.maximum(z, FLOOR)
    return weight * (re * q_re + im * q_im), weight * (im * q_re - re * q_im)


@triton.jit
def read_back(
    sums: tl.tensor, q_re: tl.tensor, q_im: tl.tensor, measure: tl.tensor, d_re: tl.tensor, d_im: tl.tensor
) -> tl.tensor:
    """Gradients from those of o_re and o_im: of the sums, of q_re, of q_im, of the measure (by lanes)."""
    z, re, im = sums
    mass = tl.maximum(z, FLOOR)
    d_re, d_im = d_re / mass, d_im / mass
    to_re, to_im = d_re * re + d_im * im, d_re * im - d_im * re
    d_measure = to_re * q_re + to_im * q_im
    d_z = tl.where(z >= FLOOR, -tl.sum(measure * d_measure, axis=1)[:, None] / mass, 0.0)
    d_sums = d_z, measure * (d_re * q_re - d_im * q_im), measure * (d_re * q_im + d_im * q_re)
    return d_sums, measure * to_re, measure * to_im, d_measure
