import subprocess
import sys

import pytest

import nautile

HEAVY = ("torch", "transformers", "jax", "pandas", "pyarrow")


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = f"import sys, nautile; print([name for name in {HEAVY} if name in sys.modules])"
    assert run(code).strip() == "[]"


@pytest.mark.slow
def test_classifying_needs_nothing_of_the_extras() -> None:
    extras = ("scipy", "sklearn", "peft", "accelerate", "matplotlib", "torchao", "numba")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({extras})); import nautile\n"
        "print(nautile.classify(['I love it']).label[0], nautile.classify(['a'], labels=['b', 'c']).shape[0])"
    )
    assert run(code).strip() == "positive 1"


def test_classifying_needs_no_model_of_transformers() -> None:
    """Nor torch's compiler: both take seconds to import."""
    code = (
        "import sys, nautile\n"
        "nautile.classify(['I love it'], task='intent'); nautile.classify(['a'], labels=['b', 'c'])\n"
        "print([name for name in ('transformers.modeling_utils', 'torch._dynamo') if name in sys.modules])"
    )
    assert run(code).strip() == "[]"


def test_the_help_of_the_command_line_imports_no_torch() -> None:
    code = (
        "import sys; from nautile.cli import main\n"
        "sys.argv = ['nautile', '--help']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        f"print([name for name in {HEAVY[:3]} if name in sys.modules])"
    )
    assert run(code).strip().endswith("[]")


def test_every_public_name_resolves() -> None:
    assert all(getattr(nautile, name) is not None for name in nautile.__all__)
    assert set(nautile.__all__) <= set(dir(nautile))


def test_architecture_and_vocabulary_are_free_of_frameworks() -> None:
    code = (
        "import sys, nautile.model.architecture, nautile.model.vocabulary\n"
        f"print([name for name in {HEAVY[:3]} if name in sys.modules])"
    )
    assert run(code).strip() == "[]"
