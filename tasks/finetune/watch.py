"""What looks on while Trainer trains: the record on disk, early stopping, the bar on the terminal."""

import json
import math
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from nautile.errors import NautileError
from nautile.tasks.finetune.options import Options


class Record(TrainerCallback):
    """metrics.jsonl: one line a record, as in the state, so that a resumed run has each once."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin with what the checkpoint knows."""
        self.path.write_text("".join(json.dumps(record) + "\n" for record in state.log_history), encoding="utf-8")

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Add the newest record; raise NautileError at a loss that is not finite."""
        newest = state.log_history[-1]
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(newest) + "\n")
        if not math.isfinite(newest.get("loss", 0.0)):
            lower = f"learning_rate lower{' or bf16=False' * args.bf16}"
            raise NautileError(f"the loss is not finite at update {newest['step']}: begin anew, {lower}")


class Patience(TrainerCallback):
    """Save with every validation; stop when so many in a row were no better than the best before them."""

    def __init__(self, options: Options, monitored: str) -> None:
        self.patience, self.monitored = options.patience, monitored
        self.sign = 1 if options.monitor == "macro_f1" else -1

    def exhausted(self, state: TrainerState) -> bool:
        """Whether the history so far ends training."""
        found = [self.sign * record[self.monitored] for record in state.log_history if self.monitored in record]
        return bool(self.patience and found) and len(found) - 1 - found.index(max(found)) >= self.patience

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Ask for a checkpoint, and for the end where it is time."""
        control.should_save = True
        control.should_training_stop = control.should_training_stop or self.exhausted(state)


class Bar(TrainerCallback):
    """A progress bar on standard error, with the newest loss and validation."""

    def __init__(self, visible: bool) -> None:
        self.said: dict[str, float] = {}
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not visible,
            transient=True,
        )
        self._task = self._bar.add_task("", total=None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ended: object) -> None:
        self._bar.stop()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Show the bar where the run stands."""
        self._bar.update(self._task, total=state.max_steps, completed=state.global_step)
        self._bar.start()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """One update more."""
        self._bar.update(self._task, completed=state.global_step)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Say the newest figures."""
        newest = state.log_history[-1]
        self.said |= {name: newest[name] for name in ("loss", "eval_macro_f1", "eval_log_loss") if name in newest}
        words = (f"{name.removeprefix('eval_').replace('_', ' ')} {value:.3f}" for name, value in self.said.items())
        self._bar.update(self._task, description=", ".join(words))
