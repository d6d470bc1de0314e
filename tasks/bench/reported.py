"""Findings that say in words what they are."""

from abc import ABC, abstractmethod
from pathlib import Path

from nautile.tasks.evaluate.results import Result


class Reported(Result, ABC):
    """What a benchmark finds, with a report."""

    @property
    @abstractmethod
    def report(self) -> str:
        """Markdown."""

    def save(self, folder: Path, figures: str, report: str) -> None:
        """Write the figures as JSON, and the report, under these names."""
        (folder / figures).write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")
        (folder / report).write_text(self.report, encoding="utf-8")
