"""The folder of a model that judges: what says that the run which wrote it is finished, or is not."""

from pathlib import Path

CHECKPOINTS, MARK, FINISHED = "checkpoints", "run.json", "head.json"


def unfinished(folder: Path) -> bool:
    """Whether a run in the folder was begun and is not done."""
    return (folder / CHECKPOINTS / MARK).is_file()
