"""The training loop: transformers' Trainer with our loss, our order and our validation, resumed after any end."""

import json
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import PrinterCallback, Trainer, TrainerControl, TrainingArguments
from transformers.trainer_callback import TrainerState
from transformers.utils import logging

from nautile.engine.memory import keep_pages
from nautile.engine.processor import multiplies_bfloat16
from nautile.model.checkpoints import without_bars
from nautile.tasks.finetune.losses import balanced, make_loss
from nautile.tasks.finetune.options import Options
from nautile.tasks.finetune.samples import AlikeLengths, Samples, collate
from nautile.tasks.finetune.split import Split
from nautile.tasks.finetune.validate import logits_of, scores
from nautile.tasks.finetune.watch import Bar, Patience, Record

KEPT = 2  # checkpoints: the newest and the best
STATE = "trainer_state.json"


class _Trainer(Trainer):
    """Trainer whose order of rows depends on seed and epoch only, and whose validation is ours."""

    split: Split
    control: TrainerControl

    def _get_train_sampler(self, train_dataset: Any = None) -> AlikeLengths:
        lengths = [len(ids) for ids in self.train_dataset.ids]
        each = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return AlikeLengths(lengths, each, self.args.seed)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Metrics of the validation rows."""
        found = scores(logits_of(self.model, self.split.valid.texts), self.split.valid)
        metrics = {f"eval_{name}": value for name, value in found.items()}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """The adapter, or the whole checkpoint; peft would else look for the base on the hub."""
        embedding = {"save_embedding_layers": False} if hasattr(self.model, "peft_config") else {}
        with without_bars():
            self.model.save_pretrained(output_dir, **embedding)


def train(model: Any, split: Split, samples: Samples, options: Options, folder: Path, visible: bool) -> dict[str, Any]:
    """Train `model` in place, to its best validated checkpoint; go on from the last whole one of `folder`, if any.

    Returns:
        What happened: the history, "updates", "best_update" (None without validation), "bf16".

    Raises:
        NautileError: a loss that is not finite.
    """
    keep_pages()
    checkpoints = folder / "checkpoints"
    with Bar(visible) as bar:
        arguments = _arguments(options, len(samples), bool(split.valid.texts), checkpoints)
        trainer = _trainer(model, split, samples, options, arguments)
        monitored = arguments.metric_for_best_model or ""
        for callback in (Record(folder / "metrics.jsonl"), Patience(options, monitored), bar):
            trainer.add_callback(callback)
        newest = newest_checkpoint(checkpoints)
        state = None if newest is None else TrainerState.load_from_json(str(newest / STATE))
        if state is None or not Patience(options, monitored).exhausted(state):
            trainer.train(resume_from_checkpoint=None if newest is None else str(newest))
            state = trainer.state
        history = [dict(record) for record in state.log_history]
        if state.best_global_step:
            load_weights(model, checkpoints / f"checkpoint-{state.best_global_step}")
    return {
        "history": history,
        "updates": state.global_step,
        "best_update": state.best_global_step if split.valid.texts else None,
        "bf16": arguments.bf16,
    }


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end; Trainer writes its state last."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)
    return next((path for path in found if _is_json(path / STATE)), None)


def load_weights(model: Any, checkpoint: Path) -> None:
    """Put a checkpoint's weights into the model."""
    if hasattr(model, "peft_config"):
        from peft import load_peft_weights, set_peft_model_state_dict

        set_peft_model_state_dict(model, load_peft_weights(str(checkpoint), device="cpu"))
    else:
        model.load_state_dict(load_file(checkpoint / "model.safetensors"))


def _is_json(path: Path) -> bool:
    try:
        return isinstance(json.loads(path.read_text(encoding="utf-8")), dict)
    except (OSError, ValueError):
        return False


def _trainer(model: Any, split: Split, samples: Samples, options: Options, arguments: TrainingArguments) -> _Trainer:
    train = split.train
    weights = balanced(train.truth, train.kind, len(train.labels)) if options.class_weights == "balanced" else None
    loss = make_loss(train.kind, weights)

    def whole_loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None) -> Any:
        return loss(outputs["logits"], labels, labels.numel() if num_items_in_batch is None else num_items_in_batch)

    trainer = _Trainer(
        model,
        arguments,
        data_collator=collate,
        train_dataset=samples,
        eval_dataset=split.valid.texts or None,
        compute_loss_func=whole_loss,
    )
    trainer.split = split
    trainer.remove_callback(PrinterCallback)
    return trainer


def _arguments(options: Options, rows: int, validated: bool, checkpoints: Path) -> TrainingArguments:
    epochs = options.epochs_for(rows)
    updates = epochs * -(-rows // (options.batch_size * options.accumulate))
    each = options.evaluate_every if validated else None
    save = options.save_every or each
    return TrainingArguments(
        output_dir=str(checkpoints),
        num_train_epochs=epochs,
        per_device_train_batch_size=options.batch_size,
        gradient_accumulation_steps=options.accumulate,
        learning_rate=options.rate,
        lr_scheduler_type="cosine",
        warmup_steps=options.warmup,
        weight_decay=options.weight_decay,
        bf16=wants_bf16(options),
        activation_checkpointing=options.gradient_checkpointing or None,
        seed=options.seed,
        logging_steps=max(1, updates // 100),
        eval_strategy="no" if not validated else "epoch" if each is None else "steps",
        eval_steps=each,
        save_strategy="epoch" if save is None else "steps",
        save_steps=save or 500,
        save_total_limit=KEPT,
        metric_for_best_model=f"eval_{options.monitor}" if validated else None,
        greater_is_better=options.monitor == "macro_f1",
        label_names=["labels"],
        remove_unused_columns=False,
        use_cpu=not torch.accelerator.is_available(),
        dataloader_pin_memory=torch.cuda.is_available(),
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        log_level="error",
        report_to=[],
    )


def wants_bf16(options: Options) -> bool:
    """As asked, or where the processor multiplies bfloat16 itself."""
    if options.bf16 != "auto":
        return options.bf16
    used = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    return multiplies_bfloat16(used)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Leave the random numbers and the log level of the process as they were; peft and Trainer change both."""
    verbosity, python, numpy = logging.get_verbosity(), random.getstate(), np.random.get_state()
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
        try:
            yield
        finally:
            logging.set_verbosity(verbosity)
            random.setstate(python)
            np.random.set_state(numpy)
