"""SeqCond Attention's inner steps as fused GPU kernels (Triton, extra `gpu`); tests hold them to readable functions.

| file                     | subject                                               | equals                       |
|--------------------------|-------------------------------------------------------|------------------------------|
| `use`                    | `use_kernels()` puts them into the model              |                              |
| `conv`                   | causal convolution and SiLU, forward and backward     | `F.silu(sca.causal_conv(…))` |
| `scan`                   | steps 3 to 5 over a sequence, differentiable          | `spectral.sca_chunked`       |
| `scan_forward`, `_back…` | its kernels: a walk over the chunks and the walk back |                              |
| `step`                   | steps 3 to 5 of one token, forward only               | `spectral.sca_step`          |
| `formulas`, `decay`      | the mathematics on blocks, and its gradients          | `_encode`, `_read`, decay    |
| `blocks`                 | shapes, loads and stores                              |                              |

Letters: see `architecture.py`. X are the lanes of a program, channels with their spectral points: see `blocks.py`.
Everything inside is float32. Triton's interpreter runs them on a CPU: TRITON_INTERPRET=1, before Triton is imported.
"""
