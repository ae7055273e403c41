"""LoRA and QLoRA training of one task on trl + peft, over token trees (`train/lora/trees.py`, `train/lora/model.py`).
Knows tokens and settings, not what the task is.

F 4.2 trains the prediction of the next item, T 4.3 the Yes/No judgement; both are the same here: prompts, answers,
weights. An epoch is a list of trees in a seeded order; all epochs are laid end to end, so a run is one sequence of
steps that a kill interrupts and a new start continues from the last checkpoint with the same result. With
`retrain_share` the examples the model found hardest are trained further (F 4.3). Devices are accelerate's business:
`train/lora/launch.py` starts this under its launcher, nothing here is distributed code of our own.
"""

from __future__ import annotations

import json
import math
import os
import resource
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file, save_file
from torch.utils.data import SequentialSampler
from transformers import PrinterCallback, TrainerCallback
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from recgraph.errors import SettingsError
from recgraph.tools.llm.adapter_sets import WEIGHTS
from recgraph.tools.llm.places import placement, quiet_transformers
from recgraph.train.lora.model import compile_layers, length_step, load_base, perplexities, tree_loss
from recgraph.train.lora.tokens import Tokens
from recgraph.train.lora.trees import Example, Tree, grow
from recgraph.train.pipeline import Note

MODULES = {
    "attention": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "all": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
}
Epoch = Sequence[Example]


@dataclass(frozen=True)
class LoraSettings:
    """How one adapter is trained. Tokens, examples and steps are counts; a step is one update of the weights."""

    rank: int = 8
    alpha: int = 16
    dropout: float = 0.05
    modules: str = "all"  # attention | all linear layers
    layers: int = 0  # so many of the last layers get an adapter, 0 all; the backward pass ends at the first of them
    learning_rate: float = 2e-4
    schedule: str = "cosine"  # any of transformers' names
    warmup: float = 0.05  # share of the steps
    epochs: int = 1
    cases: int = 0  # cases used of the train part, 0 all
    # NEXT: also learn ids that their prompt does not show; a small model cannot, and makes ids up instead
    unseen_ids: bool = True
    negatives: int = 8  # FIT: drawn anew for each case and epoch; T: 1
    fit_weight: float = 1.0  # what a judgement counts, where the answer to NEXT counts 1
    batch: int = 16  # examples a step (T: 64)
    max_tokens: int = 1024  # longest prompt with answer; a longer one is an error, never cut
    tree_tokens: int = 1536  # tokens of one forward pass
    loss: str = "completion"  # or prompt: over everything (T eq. 1)
    retrain_share: float = 0.0  # F 4.3: 0.2
    retrain_epochs: int = 0  # F 4.3: 3
    quantize: str = "none"  # nf4: QLoRA with double quantisation
    checkpointing: bool = False  # recompute activations: less memory, a third more time
    save_steps: int = 20
    eval_cases: int = 100  # held-out cases measured before and after
    seed: int = 7

    def __post_init__(self) -> None:
        for name, allowed in (
            ("modules", tuple(MODULES)),
            ("loss", ("completion", "prompt")),
            ("quantize", ("none", "nf4")),
        ):
            if getattr(self, name) not in allowed:
                raise SettingsError(f"{name} is '{getattr(self, name)}'; it must be one of {', '.join(allowed)}.")
        for name in (
            "rank",
            "alpha",
            "epochs",
            "negatives",
            "batch",
            "max_tokens",
            "tree_tokens",
            "save_steps",
            "eval_cases",
        ):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if not 0 <= self.retrain_share < 1:
            raise SettingsError(f"retrain_share is {self.retrain_share}; it must be at least 0 and below 1.")


class _Trees(SFTTrainer):
    """trl's trainer over trees: one tree a device and forward pass, in the order planned, the loss a weighted mean over
    its targets."""

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        total: torch.Tensor = inputs["weights"].sum()
        return tree_loss(model, inputs).sum() / total

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        planned: Any = train_dataset if train_dataset is not None else self.train_dataset
        return SequentialSampler(planned)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """None: recgraph.json beside the adapter says more."""


class _Watch(TrainerCallback):
    """Tells of progress with the time left, and keeps the loss of each step."""

    def __init__(self, label: str, sizes: Sequence[int], note: Note) -> None:
        self.label, self.note, self.sizes = label, note, sizes
        self.curve: list[tuple[int, float, float]] = []
        self._started = self._last_note = time.monotonic()
        self._first = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._started = self._last_note = time.monotonic()
        self._first = state.global_step

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, float] | None = None, **_: Any) -> None:
        if not state.is_world_process_zero or not logs or "loss" not in logs:
            return
        self.curve.append((state.global_step, float(logs["loss"]), float(logs.get("learning_rate", 0.0))))
        now, done = time.monotonic(), state.global_step - self._first
        if now - self._last_note >= 20 or state.global_step == state.max_steps:
            self._last_note = now
            left = (now - self._started) / done * (state.max_steps - state.global_step)
            each = args.gradient_accumulation_steps * args.world_size
            tokens = sum(self.sizes[self._first * each : state.global_step * each])
            mean = sum(loss for _, loss, _ in self.curve[-20:]) / len(self.curve[-20:])
            speed = f"{tokens / (now - self._started):,.0f} tok/s"
            self.note(
                f"{self.label}: step {state.global_step}/{state.max_steps}, loss {mean:.3f}, {speed}, {_clock(left)} "
                "left"
            )


def _clock(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


@dataclass(frozen=True)
class TrainedAdapter:
    """What a training gives: the folder of the saved PEFT adapter, loss per step as (phase, step, loss, learning rate),
    and what it cost.

    `hard` are the places (in the last epoch) of the examples that were trained further; cost: examples, tokens
    computed, tokens that plain sequences would have had, seconds and tokens_per_second of this process, flops_per_token
    (2 for each weight read forward, 2 more where the gradient passes back through it; attention not counted),
    peak_memory_gib.
    """

    adapter: Path
    curve: list[tuple[str, int, float, float]]
    hard: list[int]
    cost: dict[str, float]


def train(
    base: Path,
    epochs: Sequence[Epoch],
    settings: LoraSettings,
    work: Path,
    note: Note = lambda _: None,
    after: Callable[[Path], None] | None = None,
    start: Path | None = None,
) -> TrainedAdapter:
    """Trains an adapter on `epochs`, each a sequence of examples in the order to be seen. It begins from nothing, or as
    the adapter in the folder `start`, whose rank, modules and layers it then has.

    `work` holds checkpoints: a run that was killed goes on there, to the same result. `after(adapter folder)` is called
    between the epochs and the further training of hard examples. The same settings, examples, machine kind and number
    of threads give the same weights.
    """
    torch.manual_seed(settings.seed)
    model = load_base(base, settings.quantize)
    compile_layers(model)
    lora = lora_of(model, settings)
    plan = _Plan(Tokens(base).tokenizer, settings, work, note)
    started, flops = time.monotonic(), flops_per_token(model, settings.layers)
    every = [example for epoch in epochs for example in epoch]
    if start is not None:
        model = PeftModel.from_pretrained(model, str(start), is_trainable=True)
    phases = [_train_phase(plan, model, None if start else lora, every, "epochs")]
    if after is not None:
        after(phases[0].adapter)
    hard: list[int] = []
    if settings.retrain_share and settings.retrain_epochs:
        last = list(epochs[-1])
        hard = _hardest(plan, phases[0].model, last)
        again = [last[place] for _ in range(settings.retrain_epochs) for place in hard]
        phases.append(_train_phase(plan, phases[0].model, None, again, "hard examples"))
    seconds = time.monotonic() - started
    peak = (
        torch.cuda.max_memory_allocated() / 2**30
        if torch.cuda.is_available()
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    )
    tokens = float(sum(phase.tokens for phase in phases))
    cost = {"examples": float(sum(phase.examples for phase in phases)), "tokens": tokens}
    cost |= {"plain_tokens": float(sum(phase.plain_tokens for phase in phases)), "flops_per_token": flops}
    cost |= {
        "seconds": round(seconds, 1),
        "tokens_per_second": round(tokens / seconds, 1),
        "peak_memory_gib": round(peak, 2),
    }
    return TrainedAdapter(phases[-1].adapter, [line for phase in phases for line in phase.curve], hard, cost)


def lora_of(model: Any, settings: LoraSettings) -> LoraConfig:
    """The adapter to begin."""
    return LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=list(MODULES[settings.modules]),
        layers_to_transform=_last_layers(model, settings.layers),
        task_type="CAUSAL_LM",
    )


@dataclass(frozen=True)
class _Plan:
    """What all phases of a training share; the checkpoints of each lie in a folder of its own in `work`."""

    tokenizer: Any
    settings: LoraSettings
    work: Path
    note: Note


@dataclass(frozen=True)
class _Phase:
    """What came out of one run over a list of examples: the model, the folder of its adapter, its curve, and how much
    was read."""

    model: Any
    adapter: Path
    curve: list[tuple[str, int, float, float]]
    examples: int
    tokens: int
    plain_tokens: int


def _hardest(plan: _Plan, model: Any, examples: Sequence[Example]) -> list[int]:
    """The places of the examples whose answers surprise the model most, kept in `work`, so that a run that goes on
    trains the same ones."""
    kept = plan.work / "hard.json"
    if kept.is_file():
        known: list[int] = json.loads(kept.read_text(encoding="utf-8"))
        return known
    plan.note("perplexity of each training prompt")
    found = perplexities(model, examples, plan.settings.tree_tokens)
    order = sorted(range(len(examples)), key=lambda place: (-found[place], place))
    hard = sorted(order[: max(1, round(plan.settings.retrain_share * len(examples)))])
    kept.write_text(json.dumps(hard), encoding="utf-8")
    return hard


def _train_phase(plan: _Plan, model: Any, lora: LoraConfig | None, examples: Sequence[Example], label: str) -> _Phase:
    """One run of trl's trainer, from the last checkpoint of its folder where there is one. `lora` is the adapter to
    begin; None: the model's own."""
    settings, note, work = plan.settings, plan.note, plan.work / label.split()[0]
    whole = settings.loss == "prompt"
    cut = list(grow(examples, settings.tree_tokens))
    trees, sizes = [places for places, _ in cut], [size for _, size in cut]
    world = int(os.environ.get("WORLD_SIZE", "1"))
    a_step = max(1, round(settings.batch / (len(examples) / len(trees)) / world))
    steps = math.ceil(len(trees) / (a_step * world))
    note(
        f"{label}: {len(examples):,} examples in {len(trees):,} trees of {sum(sizes) / len(trees):,.0f} tokens, "
        f"{steps:,} steps"
    )
    watch, multiple = _Watch(label, sizes, note), length_step(model, settings.tree_tokens)
    arguments = _arguments(settings, work, a_step, steps, world)

    def collate(rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        chosen = [examples[place] for row in rows for place in trees[row["tree"]]]
        return Tree(chosen, whole=whole).tensors(multiple)

    with quiet_transformers():
        trainer = _Trees(
            model=model,
            args=arguments,
            data_collator=collate,
            train_dataset=Dataset.from_dict({"tree": list(range(len(trees)))}),
            processing_class=plan.tokenizer,
            peft_config=lora,
            callbacks=[watch],
        )
        # The loss above is a mean already; with this off, transformers divides by the steps that are accumulated and no
        # more.
        trainer.model_accepts_loss_kwargs = False
        trainer.pop_callback(PrinterCallback)
        last = _last_checkpoint(work)
        if last:
            note(f"{label}: going on from {Path(last).name}")
        trainer.train(resume_from_checkpoint=last)
        trainer.save_model(str(work / "adapter"))  # every process takes part: a sharded model is gathered here
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    curve = [
        (label, int(entry["step"]), float(entry["loss"]), float(entry.get("learning_rate", 0.0))) for entry in logged
    ]
    adapted = trainer.accelerator.unwrap_model(trainer.model)
    return _Phase(adapted, work / "adapter", curve, len(examples), sum(sizes), sum(map(len, examples)))


def save_small(adapter: Path, target: Path) -> None:
    """Copies a PEFT adapter with its weights in bf16: half the size, and what is measured is what is shipped."""
    target.mkdir(parents=True)
    shutil.copyfile(adapter / "adapter_config.json", target / "adapter_config.json")
    weights = load_file(adapter / WEIGHTS)
    save_file(
        {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in sorted(weights.items())},
        target / WEIGHTS,
        metadata={"format": "pt"},
    )
    (target / WEIGHTS).chmod(0o644)  # safetensors writes it for its owner alone


def flops_per_token(model: Any, layers: int) -> float:
    """Floating-point operations of a training step, attention not counted: 2 for each weight read forward, 2 more where
    the gradient passes back through it, which is the last `layers` (0: all)."""
    config = model.config
    heads, size = config.num_attention_heads, config.hidden_size
    head = getattr(config, "head_dim", None) or size // heads
    attention = 2 * size * head * (heads + config.num_key_value_heads)
    layer = attention + 3 * size * config.intermediate_size
    total = int(config.num_hidden_layers)
    return float(2 * layer * (total + min(layers or total, total)))


def _arguments(settings: LoraSettings, work: Path, a_step: int, steps: int, world: int) -> SFTConfig:
    """trl's settings for one phase: `a_step` trees a step and process, `steps` in all, `world` processes."""
    on_gpu, dtype = placement()[0] == "cuda", placement()[1]
    recomputing: dict[str, Any] = {_recomputing(SFTConfig): settings.checkpointing}
    return SFTConfig(
        output_dir=str(work),
        per_device_train_batch_size=1,
        gradient_accumulation_steps=a_step,
        num_train_epochs=1,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.schedule,
        warmup_steps=round(settings.warmup * steps),
        weight_decay=0.0,
        optim="adamw_torch",
        bf16=dtype == torch.bfloat16,
        use_cpu=not on_gpu,
        logging_steps=1,
        save_steps=settings.save_steps,
        save_total_limit=1,
        seed=settings.seed,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        dataloader_pin_memory=on_gpu,
        dataloader_num_workers=2 if on_gpu else 0,  # a tree takes 10 ms to build, and a card should not wait
        ddp_find_unused_parameters=False if world > 1 else None,
        **recomputing,
    )


def _recomputing(config: Any) -> str:
    """What the setting is called that recomputes activations: transformers 5.17 knows the older name alone, which v6 is
    to drop, and trl sets it where nobody does."""
    names = {field.name for field in fields(config)}
    return "activation_checkpointing" if "activation_checkpointing" in names else "gradient_checkpointing"


def _last_checkpoint(work: Path) -> str | None:
    """The newest whole checkpoint. Its state is written last, so a run killed while it wrote one left no state there,
    or the half of one."""
    found = [folder for folder in work.glob("checkpoint-*") if _is_json(folder / "trainer_state.json")]
    return str(max(found, key=lambda folder: int(folder.name.split("-")[1]))) if found else None


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


def _last_layers(model: Any, count: int) -> list[int] | None:
    total = int(model.config.num_hidden_layers)
    return list(range(max(0, total - count), total)) if count else None
