"""The model card of a run: what it is, how it did, how to load it, what it cannot do."""

from pathlib import Path

from nautile.tasks.evaluate.tables import brief, span
from nautile.tasks.finetune.outcome import Outcome
from nautile.tasks.kinds import Kind
from nautile.tasks.sheets import visible

KINDS: dict[Kind, str] = {
    "single": "one of the labels",
    "ordinal": "one of the labels, which have an order",
    "multi": "any number of the labels",
}
WHAT = {
    "lora": "a LoRA adapter (peft's own format), with the `score` layer that ends in the labels",
    "full": "a whole checkpoint, every weight trained",
    "head": "a linear head on what the untouched model reads",
}
MOST_LABELS = 40


def card(outcome: Outcome, name: str) -> str:
    """README.md of the run folder `name`."""
    front = ["---", "library_name: " + ("peft" if outcome.options.method == "lora" else "nautile")]
    front += ["pipeline_tag: text-classification", "license: unknown  # yours to say; see below", "---"]
    parts = ["\n".join(front), f"# {name}", _what(outcome), _figures(outcome), _use(outcome, name), _limits(outcome)]
    return "\n\n".join(parts) + "\n"


def _what(outcome: Outcome) -> str:
    options, split, training = outcome.options, outcome.split, outcome.training
    labels = split.train.labels
    shown = ", ".join(f"`{visible(label)}`" for label in labels[:MOST_LABELS])
    more = f" and {len(labels) - MOST_LABELS} more (head.json has all)" if len(labels) > MOST_LABELS else ""
    lines = [
        f"Base model: `{options.base}`. This folder holds {WHAT[options.method]}.",
        f"It gives a text {KINDS[split.train.kind]}. The {len(labels)} labels: {shown}{more}.",
        f"Trained on {outcome.learned:,} rows, validated on {len(split.valid.texts):,}{' of them' * options.refit}, "
        f"in {training.seconds / 60:.1f} minutes; `config.yaml` repeats it"
        f"{', given the same rows' * (options.data is None)}.",
    ]
    return "\n\n".join([*lines, "\n".join(f"- {note}" for note in outcome.notes)]).rstrip()


def _figures(outcome: Outcome) -> str:
    found = outcome.figures
    if found is None:
        return "## Figures\n\nNothing was validated."
    rows = [f"| {name} | {estimate.value:.3f} | {span(estimate, '{:.3f}')} |" for name, estimate in brief(found)]
    chosen = "regularisation" if outcome.options.method == "head" else "checkpoint"
    optimism = (
        f"The best {chosen} and the calibration were chosen on these very rows, so expect a little less on new ones"
    )
    if outcome.options.refit:
        optimism = (
            "Each fifth of these rows was judged by a head fitted on all other rows; this folder's is fitted on all. "
            f"The {chosen} was chosen on them, so expect a little less on new ones"
        )
    optimism += "; `nautile evaluate` measures on rows of your own. More: `report.md`, `metrics.json`, `curves.png`."
    table = ["| validation | | 95 % interval |", "|---|---:|---:|", *rows]
    return "## Figures\n\n" + "\n".join(table) + "\n\n" + optimism


def _use(outcome: Outcome, name: str) -> str:
    short = f'```python\nimport nautile\n\nnautile.classify(texts, model="{name}")\n```'
    if outcome.options.method == "head":
        return f"## Use\n\n{short}"
    classes = f"num_labels={len(outcome.split.train.labels)}"
    if outcome.options.method == "full":
        place, wrap, imported = f'"{name}"', "", ""
    else:
        place = f'locate("{outcome.options.base}")'
        imported = "from peft import PeftModel\n"
        wrap = f'model = PeftModel.from_pretrained(model, "{name}").eval()\n'
    plain = (
        "```python\nimport torch\n" + imported + "from transformers import AutoModelForSequenceClassification\n"
        "from nautile.model.checkpoints import locate  # registers the architecture; a folder needs no locate\n\n"
        f"model = AutoModelForSequenceClassification.from_pretrained(\n    {place}, {classes}, "
        "dtype=torch.float32, ignore_mismatched_sizes=True\n)\n" + wrap + "```"
    )
    alone = f"With transformers{' and peft' if wrap else ''} alone, which gives the logits before calibration"
    return f"## Use\n\n{short}\n\n{alone} (`nautile.tasks.scaling` says how `head.json` scales them):\n\n{plain}"


def _limits(outcome: Outcome) -> str:
    sure = "The probabilities are not calibrated; take them as scores."
    if outcome.calibration is not None:
        sure = f"Probabilities were calibrated on {outcome.calibration.source}, and hold for texts like those."
    outside = outcome.options.out_of_scope
    given = "may get some of them too" if outcome.split.train.kind == "multi" else "gets one of them too"
    elsewhere = given if outside is None else f"should get `{outside}`, as far as the rows taught it"
    read = "It reads the whole of a text, a long one in windows, and averages over all tokens."
    if outcome.options.method != "head":
        read = (
            f"It was trained on the first {outcome.options.max_length} tokens of a text; longer ones are read in "
            "windows and averaged."
        )
    return "\n".join(
        (
            "## Limits",
            "",
            f"- {sure}",
            f"- It knows the labels above and no others: a text about something else {elsewhere}.",
            f"- {read}",
            "- What the training rows get wrong or leave out, it does too: look at the rows it confuses.",
            "- Licence: what you may do with this model depends on the base model and on your data; say it here.",
        )
    )


def write_card(outcome: Outcome, folder: Path) -> None:
    """Write README.md."""
    (folder / "README.md").write_text(card(outcome, folder.name), encoding="utf-8")
