"""SeqCond Attention's inner steps as fused kernels; tests hold them to readable functions.

On a GPU (Triton, extra `gpu`):

| file                     | subject                                               | equals                       |
|--------------------------|-------------------------------------------------------|------------------------------|
| `use`                    | `use_kernels()` puts them into the model              |                              |
| `conv`                   | causal convolution and SiLU, forward and backward     | `sca.conv_silu`              |
| `scan`                   | steps 3 to 5 over a sequence, differentiable          | `spectral.sca_chunked`       |
| `scan_forward`, `_back…` | its kernels: a walk over the chunks and the walk back |                              |
| `step`                   | steps 3 to 5 of one token, forward only               | `spectral.sca_step`          |
| `formulas`, `decay`      | the mathematics on blocks, and its gradients          | `_encode`, `_read`, decay    |
| `blocks`                 | shapes, loads and stores                              |                              |

On a CPU (numba, extra `cpu`); the model takes them by itself where they are there:

| file             | subject                                                                 | equals                 |
|------------------|-------------------------------------------------------------------------|------------------------|
| `cpu`            | which tensors the loop takes, and how                                   | `SCA._mix`, no readout |
| `loops`          | the loop itself: step 1 and steps 3 to 6 up to the norm, token by token |                        |
| `loops_backward` | its gradients: a walk that keeps the sums, and the walk back            |                        |

Letters: see `architecture.py`. X are the lanes of a program, channels with their spectral points: see `blocks.py`.
Everything inside is float32. Triton's interpreter runs its kernels on a CPU: TRITON_INTERPRET=1, before its import.
"""
