"""What `nautile bench language` finds, as it is written to language.json and language.md."""

from pydantic import Field

from nautile.tasks.bench.reported import Reported
from nautile.tasks.evaluate.results import Estimate, Result
from nautile.tasks.evaluate.tables import span
from nautile.tasks.sheets import Sheet, as_markdown

ALL = "all"
COLUMNS = ("source", "documents", "bytes", "bits a byte", "xz")
SAMPLES = ("prompt", "goes on")


class Source(Result):
    """Held-out documents of one source, or of all."""

    source: str
    documents: int
    size: int = Field(description="bytes in UTF-8")
    bits: Estimate = Field(description="bits a byte that the model needs, the start of each document included")
    xz: float = Field(description="bits a byte that xz needs for the same documents, one after the other")


class Sample(Result):
    """What the model wrote after a prompt."""

    prompt: str
    text: str


class Language(Reported):
    """One run of `nautile bench language`."""

    version: str
    model: str
    seed: int
    resamples: int
    sources: list[Source]
    samples: list[Sample]

    @property
    def report(self) -> str:
        """Markdown."""
        about = (
            f"{self.model}, nautile {self.version}, seed {self.seed}, on the beginnings of documents that it was not "
            f"trained to continue. In brackets 95 % intervals of {self.resamples:,} bootstrap resamples of documents."
        )
        rows = [(s.source, f"{s.documents:,}", f"{s.size:,}", _said(s.bits), f"{s.xz:.2f}") for s in self.sources]
        samples = [(sample.prompt, sample.text) for sample in self.samples]
        parts = [
            "# Language",
            about,
            as_markdown(Sheet("Bits a byte", COLUMNS, rows)),
            as_markdown(Sheet("Samples, the first drawn", SAMPLES, samples, prose=True)),
        ]
        return "\n\n".join(parts) + "\n"


def _said(bits: Estimate) -> str:
    return f"{bits.value:.2f} [{span(bits, '{:.2f}')}]"
