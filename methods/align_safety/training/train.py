"""Runs `align-safety-train`: trl trains, every epoch is kept, a killed part goes on with it."""

from __future__ import annotations

import json
import logging
import math
import random
import shutil
import tarfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from peft import LoraConfig
from transformers import PrinterCallback, TrainerCallback, set_seed
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from methods.align_safety.overlap.directions import leading
from methods.align_safety.overlap.measuring import directions
from methods.align_safety.overlap.penalty import overlap_penalty, span
from methods.align_safety.overlap.weight_files import CONFIG, WEIGHTS
from methods.align_safety.training.bases import Base, load_base, save_trained
from methods.align_safety.training.encoding import Encoded, Encoder
from methods.align_safety.training.modules import Matched, match
from methods.align_safety.training.part import Checkpoint, NotFinite, TrainMade, TrainPart
from methods.align_safety.training.rows import read_training
from methods.align_safety.training.settings import OverlapPenalty, Training
from methods.context import RunContext
from methods.resume import ResumeStore

_KEPT = "training"
_LARGE = 3_000_000_000
#: A pickle: what is kept can be read by nobody's code but transformers' own, without it.
_NOT_KEPT = {"training_args.bin"}
_OF_TRAINER = {
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "trainer_state.json",
    "training_args.bin",
    "README.md",
}


def run(spec: TrainPart, ctx: RunContext) -> TrainMade:
    """Train one configuration at one rate; see `TrainPart` and `TrainMade`."""
    for name in ("datasets", "trl", "transformers", "accelerate"):
        logging.getLogger(name).setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    training = spec.training
    base = load_base(spec.model, spec.device, training.method == "full", ctx)
    think = spec.template.thought_of(training.reference)
    rows = read_training(spec.train, spec.mix, spec.seed, ctx)
    encoder = Encoder(base.tokenizer, spec.template, str(spec.model))
    encoded = encoder.encode(rows.thinking(spec.template, think), training.max_length)
    matched = match(base.model, training)
    with own_randomness(), warnings.catch_warnings():
        # Of names that the libraries still use among themselves.
        warnings.simplefilter("ignore", FutureWarning)
        done, failed, trainable = _train(spec, base, encoded, matched, ctx)
    lines = "".join(json.dumps(entry) + "\n" for entry in done.history)
    ctx.save_artifact("training.jsonl", lines.encode(), "application/x-ndjson")
    return TrainMade(
        rows=len(rows.rows),
        mixed=rows.mixed,
        cut=encoded.cut,
        modules=[] if training.method == "full" else matched.names,
        trainable=trainable,
        checkpoints=[
            Checkpoint(
                epoch=epoch,
                step=done.steps[epoch],
                loss=done.loss(epoch),
                model=save_trained(base, done.folder(epoch), f"epoch-{epoch}", ctx),
            )
            for epoch in sorted(done.steps)
        ],
        failed=failed,
        versions={name: version(name) for name in ("torch", "transformers", "trl", "peft")},
    )


@contextmanager
def own_randomness() -> Iterator[None]:
    """trl seeds the generators of the process; they come back as they were."""
    before = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])


class _Epochs:
    """What is kept of every epoch, for this attempt and a later one."""

    def __init__(self, spec: TrainPart, ctx: RunContext) -> None:
        self._ctx, self._store = ctx, ResumeStore(ctx, spec.model_dump_json())
        self.output = ctx.workdir / "trainer"
        self.steps: dict[int, int] = {}
        self.history: list[dict[str, float]] = []

    def folder(self, epoch: int) -> Path:
        """The model of an epoch."""
        return self._ctx.workdir / f"epoch-{epoch}"

    def loss(self, epoch: int) -> float:
        """Mean loss of its steps."""
        first = self.steps.get(epoch - 1, 0)
        own = [e["loss"] for e in self.history if first < e["step"] <= self.steps[epoch]]
        return float(np.mean(own)) if own else math.nan

    def keep(self, epoch: int, step: int, checkpoint: Path) -> None:
        """Keep an epoch: its weights, and what training goes on from."""
        self.steps[epoch] = step
        folder = self.folder(epoch)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        adapter = (checkpoint / CONFIG).is_file()
        for path in checkpoint.iterdir():
            if path.name in (WEIGHTS, CONFIG) if adapter else path.name not in _OF_TRAINER:
                shutil.copyfile(path, folder / path.name)
        self._store.keep_folder(f"epoch-{epoch}", folder)
        # Two places in turn: what the last state names is whole, whenever the attempt ends.
        self._store.keep_folder(f"{_KEPT}-{epoch % 2}", checkpoint, _NOT_KEPT)
        # Last: an epoch counts once all of it is there.
        state = {"steps": self.steps, "history": self.history}
        self._store.keep("epochs", json.dumps(state).encode())

    def resume(self) -> Path | None:
        """The checkpoint to go on from, with all earlier epochs in place."""
        data = self._store.find("epochs")
        if data is None:
            return None
        state = json.loads(data)
        steps = {int(epoch): step for epoch, step in state["steps"].items()}
        folders = [(f"epoch-{epoch}", self.folder(epoch)) for epoch in steps]
        target = self.output / f"checkpoint-{max(steps.values())}"
        for name, folder in [*folders, (f"{_KEPT}-{max(steps) % 2}", target)]:
            try:
                if not self._store.find_folder(name, folder):
                    return None
            except (OSError, tarfile.TarError):
                return None
        self.steps, self.history = steps, state["history"]
        return target


class _Following(TrainerCallback):  # type: ignore[misc]
    """Tells the job how training goes, keeps epochs, and ends what is not finite."""

    def __init__(self, epochs: _Epochs, ctx: RunContext) -> None:
        self._epochs, self._ctx = epochs, ctx
        self.failed: NotFinite | None = None

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """See `TrainerCallback`."""
        self._ctx.progress("training", state.global_step, state.max_steps, "steps")

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> Any:
        """See `TrainerCallback`."""
        if not logs or "loss" not in logs:
            return control
        values = {name: float(logs[name]) for name in ("loss", "learning_rate", "grad_norm")}
        self._epochs.history.append({"step": state.global_step, **values})
        self._ctx.metric("loss", values["loss"], state.global_step)
        self._ctx.metric("learning_rate", values["learning_rate"], state.global_step)
        if not (math.isfinite(values["loss"]) and math.isfinite(values["grad_norm"])):
            self._epochs.history.pop()
            self.failed = NotFinite(step=state.global_step, learning_rate=args.learning_rate)
            control.should_training_stop = True
            control.should_save = False
        return control

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """See `TrainerCallback`."""
        if self.failed is not None:
            return
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        self._epochs.keep(round(state.epoch), state.global_step, checkpoint)


class _Penalised(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer with the overlap penalty in its loss."""

    penalised: list[tuple[Any, Any, dict[str, torch.Tensor]]]
    penalty: OverlapPenalty | None = None

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """See `Trainer`."""
        found = super().compute_loss(model, inputs, *args, **kwargs)
        if self.penalty is None:
            return found
        term = sum(
            overlap_penalty(a.weight, b.weight, spans, self.penalty.normalise)
            for a, b, spans in self.penalised
        )
        if isinstance(found, tuple):
            return found[0] + self.penalty.beta * term, *found[1:]
        return found + self.penalty.beta * term


def _train(
    spec: TrainPart, base: Base, encoded: Encoded, matched: Matched, ctx: RunContext
) -> tuple[_Epochs, NotFinite | None, int]:
    training, epochs = spec.training, _Epochs(spec, ctx)
    resumed = epochs.resume()
    following = _Following(epochs, ctx)
    large = base.model.num_parameters() > _LARGE
    # Adapters get their first weights before the trainer seeds anything.
    set_seed(spec.seed)
    trainer = _Penalised(
        model=base.model,
        args=_arguments(spec, epochs.output, len(encoded.ids), large),
        train_dataset=datasets.Dataset.from_dict(
            {"input_ids": encoded.ids, "labels": encoded.labels()}
        ),
        processing_class=base.tokenizer,
        peft_config=None if training.method == "full" else _lora(training, matched),
        callbacks=[following],
    )
    trainer.remove_callback(PrinterCallback)
    if training.overlap_penalty is not None:
        trainer.penalty = training.overlap_penalty
        trainer.penalised = _penalised(trainer.model, training.overlap_penalty, ctx)
    trainable = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    trainer.train(resume_from_checkpoint=None if resumed is None else str(resumed))
    return epochs, following.failed, trainable


def _arguments(spec: TrainPart, output: Path, rows: int, large: bool) -> SFTConfig:
    training = spec.training
    steps = math.ceil(rows / training.per_device_train_batch_size) * training.num_train_epochs
    return SFTConfig(
        output_dir=str(output),
        num_train_epochs=training.num_train_epochs,
        per_device_train_batch_size=training.per_device_train_batch_size,
        learning_rate=training.learning_rate,
        weight_decay=training.weight_decay,
        lr_scheduler_type=training.lr_scheduler_type,
        warmup_steps=math.ceil(training.warmup_ratio * steps),
        save_strategy="epoch",
        save_total_limit=1,
        logging_steps=1,
        # A loss that is not finite is to be seen, not smoothed.
        logging_nan_inf_filter=False,
        report_to=[],
        disable_tqdm=True,
        seed=spec.seed,
        data_seed=spec.seed,
        use_cpu=spec.device == "cpu",
        bf16=False,
        # Memory against time: worth it above some billion weights.
        activation_checkpointing=large,
        max_length=None,
        packing=False,
        dataset_kwargs={"skip_prepare_dataset": True},
    )


def _lora(training: Training, matched: Matched) -> LoraConfig:
    return LoraConfig(
        r=training.r,
        lora_alpha=training.lora_alpha,
        use_rslora=training.use_rslora,
        lora_dropout=training.lora_dropout,
        # Full names: what was matched and nothing else, whatever else the model has.
        target_modules=matched.names,
        bias="none",
        task_type="CAUSAL_LM",
    )


def _penalised(
    model: Any, penalty: OverlapPenalty, ctx: RunContext
) -> list[tuple[Any, Any, dict[str, torch.Tensor]]]:
    """Factors of every adapted module with what the penalty multiplies them by."""
    found = []
    modules = [m for m in model.modules() if hasattr(m, "lora_A") and "default" in m.lora_A]
    for done, module in enumerate(modules):
        ctx.progress("leading directions", done, len(modules), "modules")
        weight = module.get_base_layer().weight.detach()
        if type(module.get_base_layer()).__name__ == "Conv1D":
            weight = weight.T
        device, weight = weight.device, weight.float().cpu()
        k, _ = directions(penalty.k, weight.shape)
        spans = span(leading(weight, k), penalty.side, penalty.weighted, penalty.normalise)
        spans = {name: value.float().to(device) for name, value in spans.items()}
        found.append((module.lora_A["default"], module.lora_B["default"], spans))
    return found
