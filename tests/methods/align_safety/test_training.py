"""One refusal fine-tuning by trl and peft: what is trained on, kept, resumed and saved."""

from __future__ import annotations

import json
import tarfile
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, LlamaForCausalLM

from methods.align_safety.overlap.directions import leading
from methods.align_safety.overlap.penalty import overlap_penalty, span
from methods.align_safety.training import train
from methods.align_safety.training.encoding import Encoder
from methods.align_safety.training.modules import match, skeleton
from methods.align_safety.training.part import TrainMade, TrainPart
from methods.align_safety.training.rows import TrainingRow, read_training
from methods.align_safety.training.settings import (
    OFFICIAL_THINK,
    BenignMix,
    PromptTemplate,
    RefusalRows,
    TuningConfiguration,
)
from methods.errors import JobError, ShuttingDown
from methods.inference.model_registry import ModelDeclaration, Models
from methods.local import LocalContext
from tests.methods.align_safety.adapters import HOWTO, MODELS, adapter
from tests.toys import howto

RATE = 1e-3


def configuration(**more: Any) -> TuningConfiguration:
    small: dict[str, Any] = {
        "name": "small",
        "r": 1,
        "target_modules": "up",
        "layers": "middle",
        "learning_rate": [RATE],
        "num_train_epochs": 2,
        "lora_dropout": 0.05,
    }
    return TuningConfiguration.model_validate(small | more)


def part(**more: Any) -> TrainPart:
    changed = {k: more.pop(k) for k in list(more) if k in TuningConfiguration.model_fields}
    given: dict[str, Any] = {
        "model": "howto",
        "train": {"rows": howto.refusals()[:32]},
        "template": {"think": howto.THINK},
        "training": configuration(**changed).at(RATE).model_dump(),
        "seed": 0,
    }
    return TrainPart.model_validate(given | more)


def trained(folder: Path, spec: TrainPart, kind: type[LocalContext] = LocalContext) -> TrainMade:
    return train.run(spec, kind(folder, spec, models=Models(MODELS)))


def unpacked(folder: Path, epoch: int) -> Path:
    target = folder / f"unpacked-{epoch}"
    with tarfile.open(folder / "artifacts" / f"epoch-{epoch}.tar") as archive:
        archive.extractall(target, filter="data")
    return target


class Killed(LocalContext):
    """Stops in the second epoch."""

    def metric(self, name: str, value: float, step: int) -> None:
        super().metric(name, value, step)
        if step > 20:
            raise ShuttingDown


def test_a_killed_training_ends_like_any_other_bit_for_bit(tmp_path: Path) -> None:
    spec = part()
    whole = trained(tmp_path / "whole", spec)
    with pytest.raises(ShuttingDown):
        trained(tmp_path / "killed", spec, Killed)
    kept = tmp_path / "killed/work"
    # Another worker: what was kept is there, the folder of the attempt is not.
    for path in kept.iterdir():
        if path.is_dir():
            import shutil

            shutil.rmtree(path)
    resumed = trained(tmp_path / "killed", spec)
    assert [one.step for one in whole.checkpoints] == [16, 32]
    names = ("rows", "modules", "trainable")
    assert all(getattr(whole, name) == getattr(resumed, name) for name in names)
    for one, other in zip(whole.checkpoints, resumed.checkpoints, strict=True):
        assert (one.step, one.loss) == (other.step, other.loss)
        assert one.model.sha256 == other.model.sha256, "the same adapter, bit for bit"
    history = [
        (tmp_path / name / "artifacts/training.jsonl").read_text() for name in ("whole", "killed")
    ]
    assert history[0] == history[1]
    assert whole.checkpoints[1].loss < whole.checkpoints[0].loss
    assert whole.modules == ["model.layers.1.mlp.up_proj"]
    assert whole.trainable == 96 + 256


def test_nothing_kept_or_saved_is_a_pickle_of_arguments(tmp_path: Path) -> None:
    trained(tmp_path, part())
    for tar in [*tmp_path.rglob("*.kept"), *tmp_path.rglob("*.tar")]:
        if tarfile.is_tarfile(tar):
            with tarfile.open(tar) as archive:
                assert not any("training_args" in name for name in archive.getnames())
    config = json.loads((unpacked(tmp_path, 2) / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "howto", "not where it lies on this machine"


def test_the_adapter_loads_in_plain_peft(tmp_path: Path) -> None:
    made = trained(tmp_path, part(r=4, target_modules="mlp", layers="all"))
    folder = unpacked(tmp_path, 2)
    base = LlamaForCausalLM.from_pretrained(HOWTO)
    before = {name: value.clone() for name, value in base.state_dict().items()}
    after = PeftModel.from_pretrained(base, folder).merge_and_unload().state_dict()
    factors = load_file(folder / "adapter_model.safetensors")
    for name in made.modules:
        a, b = (factors[f"base_model.model.{name}.lora_{k}.weight"] for k in "AB")
        delta = after[f"{name}.weight"] - before[f"{name}.weight"]
        assert delta.numpy() == pytest.approx((4.0 * b @ a).numpy(), abs=1e-6)
    assert len(made.modules) == 9


def test_training_on_an_adapter_saves_the_sum_of_both(tmp_path: Path) -> None:
    first = trained(tmp_path / "first", part(target_modules="mlp", r=2, use_rslora=True))
    spec = part(model=str(tmp_path / "first/artifacts/epoch-2.tar"), num_train_epochs=1)
    second = trained(tmp_path / "second", spec)
    assert second.checkpoints[0].loss < first.checkpoints[0].loss, "it goes on from there"
    folder = unpacked(tmp_path / "second", 1)
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["use_rslora"]) == (3, 3, False)
    base = LlamaForCausalLM.from_pretrained(HOWTO)
    before = {name: value.clone() for name, value in base.state_dict().items()}
    both = PeftModel.from_pretrained(base, folder).merge_and_unload().state_dict()
    alone = PeftModel.from_pretrained(
        LlamaForCausalLM.from_pretrained(HOWTO), unpacked(tmp_path / "first", 2)
    )
    earlier = alone.merge_and_unload().state_dict()
    name = "model.layers.1.mlp.down_proj.weight"
    # Only the first one changes it.
    assert (both[name] - before[name]).numpy() == pytest.approx(
        (earlier[name] - before[name]).numpy(), abs=1e-6
    )
    name = "model.layers.1.mlp.up_proj.weight"
    assert float((both[name] - earlier[name]).norm()) > 1e-3


def test_an_adapter_with_ranks_of_its_own_is_added_exactly(tmp_path: Path) -> None:
    """Ranks and alphas by pattern, as peft writes them."""
    from methods.align_safety.training.bases import _put_beside

    patterns = {"rank_pattern": {"up_proj": 8}, "alpha_pattern": {"up_proj": 16}}
    first = adapter(tmp_path / "first", **patterns)
    second = adapter(tmp_path / "second", seed=2, r=2)
    states = [adapters_merged(one) for one in (first, second)]
    base = LlamaForCausalLM.from_pretrained(HOWTO).state_dict()
    _put_beside(first, second)
    both = adapters_merged(second)
    for name in base:
        wanted = states[0][name] + states[1][name] - base[name]
        assert both[name].numpy() == pytest.approx(wanted.numpy(), abs=1e-5), name


def adapters_merged(folder: Path) -> Any:
    base = LlamaForCausalLM.from_pretrained(HOWTO)
    return PeftModel.from_pretrained(base, folder).merge_and_unload().state_dict()


def test_a_full_fine_tuning_and_adapters_of_what_it_made(tmp_path: Path) -> None:
    made = trained(tmp_path / "full", part(method="full", num_train_epochs=1))
    folder = unpacked(tmp_path / "full", 1)
    tuned = LlamaForCausalLM.from_pretrained(folder)
    assert AutoTokenizer.from_pretrained(folder).eos_token == "</s>"
    before = LlamaForCausalLM.from_pretrained(HOWTO)
    assert sum(p.numel() for p in before.parameters()) == made.trainable
    assert any(
        not torch.equal(a, b) for a, b in zip(tuned.parameters(), before.parameters(), strict=True)
    )
    spec = part(model=str(tmp_path / "full/artifacts/epoch-1.tar"), num_train_epochs=1)
    trained(tmp_path / "more", spec)
    more = LlamaForCausalLM.from_pretrained(unpacked(tmp_path / "more", 1))
    name = "model.layers.1.mlp.up_proj.weight"
    delta = more.state_dict()[name] - tuned.state_dict()[name]
    assert torch.linalg.matrix_rank(delta.double(), rtol=1e-3) == 1


def test_a_loss_that_is_not_finite_ends_one_training(tmp_path: Path) -> None:
    spec = part()
    spec.training.learning_rate = 1e30
    made = trained(tmp_path, spec)
    assert made.failed is not None
    assert (made.failed.learning_rate, made.checkpoints) == (1e30, [])
    assert 1 < made.failed.step < 16


def test_the_penalty_is_part_of_the_loss_and_lowers_the_overlap(tmp_path: Path) -> None:
    weight = load_file(HOWTO / "model.safetensors")["model.layers.1.mlp.up_proj.weight"]
    found, energies = leading(weight, 8), []
    penalty = {"side": "column", "k": 8, "beta": 10.0}
    for name, given in (("plain", None), ("penalised", penalty)):
        trained(tmp_path / name, part(r=4, overlap_penalty=given))
        factors = load_file(unpacked(tmp_path / name, 2) / "adapter_model.safetensors")
        a, b = (
            factors[f"base_model.model.model.layers.1.mlp.up_proj.lora_{k}.weight"] for k in "AB"
        )
        spans = {k: v.float() for k, v in span(found, "column", True, True).items()}
        energies.append(float(overlap_penalty(a, b, spans, True)))
    assert energies[1] < 0.7 * energies[0]


def test_weights_of_other_jobs_are_left_as_they_are(tmp_path: Path) -> None:
    from methods.inference.generate import load_generator

    models = Models(MODELS)
    shared = models.load("howto", load_generator)
    before = [name for name, _ in shared._model.named_modules()]
    spec = part(num_train_epochs=1)
    train.run(spec, LocalContext(tmp_path, spec, models=models))
    assert models.load("howto", load_generator) is shared
    assert [name for name, _ in shared._model.named_modules()] == before


# --- rows, template, modules -----------------------------------------------------------------


def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(HOWTO)


def encoder(**template: Any) -> Encoder:
    return Encoder(tokenizer(), PromptTemplate.model_validate(template), "howto")


def row(completion: str, prompt: str = "how do i make a cake", benign: bool = False) -> TrainingRow:
    return TrainingRow(0, [{"role": "user", "content": prompt}], completion, benign)


def test_the_loss_counts_the_completion_and_one_end_token() -> None:
    own = tokenizer()
    for completion in ("get a cake", "get a cake</s>"):
        found = encoder().encode([row(completion)], 100)
        [ids], [labels] = found.ids, found.labels()
        assert own.decode(ids) == "<s> <|User|> how do i make a cake <|Assistant|> get a cake </s>"
        assert [token for token in labels if token != -100] == own("get a cake</s>")["input_ids"]
        assert labels[: found.prompts[0]] == [-100] * found.prompts[0]


def test_raw_templates() -> None:
    found = encoder(kind="raw", prompt="<|User|>{prompt}<|Assistant|>").encode([row("get")], 100)
    assert (
        tokenizer().decode(found.ids[0]) == "<|User|> how do i make a cake <|Assistant|> get </s>"
    )
    with pytest.raises(ValueError, match=r"\{prompt\}"):
        PromptTemplate(kind="raw", prompt="nothing")


def test_tokens_that_join_at_the_seam_are_named() -> None:
    """A template whose prompt ends in a word joins with the completion's first one."""
    with pytest.raises(JobError, match="joins its prompt in one token: at token 5") as error:
        encoder(kind="raw", prompt="<s>{prompt} a").encode([row("cake", "how do i make")], 100)
    assert error.value.details["rows"][0]["row"] == 0
    assert error.value.code == "input_invalid"


def test_a_refusal_that_would_lose_its_end_is_refused_and_the_length_is_named() -> None:
    rows = [row("i can not help with that")] * 3
    with pytest.raises(JobError, match="refusals that never end") as error:
        encoder().encode(rows, 10)
    needed = error.value.details["max_length_needed"]
    assert encoder().encode(rows, needed).cut == 0
    long = [row("get a cake then sell it slowly slowly", benign=True), *[row("no")] * 9]
    found = encoder().encode(long, 14)
    assert found.cut == 1
    with pytest.raises(JobError, match="longer than max_length"):
        encoder().encode(long[:2], 14)


def test_a_template_that_opens_the_thinking_is_aligned() -> None:
    own = tokenizer()
    own.chat_template = own.chat_template.replace(
        "<|Assistant|>{% endif %}", "<|Assistant|><think>{% endif %}"
    )
    found = Encoder(own, PromptTemplate(), "howto")
    assert found.begun
    encoded = found.encode([row("<think>i can</think> get a cake")], 100)
    assert own.decode(encoded.ids[0]).count("<think>") == 1
    assert "opens the thinking itself" in encoded.warnings[0]
    # A plain refusal is no thought: the thinking is closed before it.
    plain = own.decode(found.encode([row("i can not help with that")], 100).ids[0])
    assert plain.endswith("<think> </think> i can not help with that </s>")
    assert not encoder().begun


def test_turns_that_the_template_does_not_take() -> None:
    own = tokenizer()
    own.chat_template = "{{ raise_exception('no system here') if messages|length > 1 else 'x' }}"
    found = Encoder(own, PromptTemplate(), "howto")
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "p"}]
    with pytest.raises(JobError, match="no system here"):
        found.encode([TrainingRow(0, turns, "c", False)], 100)


def test_a_model_without_a_chat_template() -> None:
    own = tokenizer()
    own.chat_template = None
    with pytest.raises(JobError, match="no chat template"):
        Encoder(own, PromptTemplate(), "howto")


def read(rows: list[dict[str, Any]], form: str, **more: Any) -> Any:
    given = RefusalRows.model_validate({"rows": rows, "format": form})
    found = read_training(given, more.get("mix"), 0, LocalContext(Path("/tmp")))
    found.rows = found.thinking(PromptTemplate(), more.get("think"))
    return found


@pytest.mark.parametrize(
    ("form", "given", "turns", "completion"),
    [
        ("prompt-completion", {"prompt": "p", "completion": "c"}, 1, "c"),
        ("prompt-completion", {"instruction": "p", "input": "more", "output": "c"}, 1, "c"),
        (
            "messages",
            {
                "messages": [
                    {"role": "system", "content": "s"},
                    {"role": "user", "content": "p"},
                    {"role": "assistant", "content": "c"},
                ]
            },
            2,
            "c",
        ),
        (
            "messages",
            {"conversations": [{"from": "human", "value": "p"}, {"from": "gpt", "value": "c"}]},
            1,
            "c",
        ),
        ("question-answer", {"text": "Question: p Answer: c Answer: d"}, 1, "c Answer: d"),
        ("question-answer", {"question": "p", "answer": "x Answer: c"}, 1, "c"),
    ],
)
def test_rows_as_people_have_them(
    form: str, given: dict[str, Any], turns: int, completion: str
) -> None:
    [found] = read([given], form).rows
    assert (len(found.turns), found.completion.strip()) == (turns, completion)
    assert found.prompt.startswith("p")


@pytest.mark.parametrize(
    ("form", "given", "said"),
    [
        ("prompt-completion", {"prompt": "p"}, "completion is missing"),
        ("prompt-completion", {"prompt": "p", "completion": "  "}, "completion is empty"),
        ("question-answer", {"text": "Question: p"}, 'no "Answer:"'),
        ("question-answer", {"text": "Question: p Answer: "}, "is empty after"),
        ("messages", {"messages": [{"role": "user", "content": "p"}]}, "does not end with"),
        ("messages", {"messages": "no"}, "no list of turns"),
    ],
)
def test_bad_rows_are_named(form: str, given: dict[str, Any], said: str) -> None:
    with pytest.raises(JobError, match=said) as error:
        read([given], form)
    assert error.value.details["rows"][0]["row"] == 0


def test_the_thought_goes_before_refusals_alone() -> None:
    mix = BenignMix.model_validate(
        {"rows": [{"prompt": f"p {k}", "completion": "c"} for k in range(9)], "ratio": 2.0}
    )
    found = read(
        [{"prompt": "h", "completion": "no"}, {"prompt": "g", "completion": "<think>x</think>no"}],
        "prompt-completion",
        mix=mix,
        think=OFFICIAL_THINK,
    )
    assert [one.completion for one in found.rows[:2]] == [
        f"<think>{OFFICIAL_THINK}</think>no",
        "<think>x</think>no",
    ]
    assert (found.mixed, len(found.rows)) == (4, 6)
    assert all(one.completion == "c" for one in found.rows[2:])
    again = read([{"prompt": "h", "completion": "no"}], "prompt-completion", mix=mix)
    assert again.mixed == 2
    few = BenignMix.model_validate({"rows": [{"prompt": "p", "completion": "c"}], "ratio": 3.0})
    assert (
        "all were taken"
        in read([{"prompt": "h", "completion": "n"}] * 2, "prompt-completion", mix=few).warnings[0]
    )


def matched(**more: Any) -> Any:
    model = skeleton(ModelDeclaration(path=str(HOWTO)), str(HOWTO))
    return match(model, configuration(**more).at(RATE))


def test_modules() -> None:
    assert len(matched(target_modules="attention+mlp", layers="all").names) == 21
    assert len(matched(target_modules=["k_proj"], layers=[1, 2]).names) == 2
    assert matched(target_modules="mlp", layers="all").trainable(2) == 9 * 2 * (96 + 256)


def test_groups_of_gpt_2() -> None:
    """Its weights lie the other way round, and two modules of a layer are called `c_proj`."""
    with torch.device("meta"):
        model = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=3, n_head=2, vocab_size=50))
    for group, count in (("mlp", 2), ("up", 1), ("attention+mlp", 4)):
        found = match(model, configuration(target_modules=group, layers="all").at(RATE))
        assert len(found.names) == 3 * count
    up = match(model, configuration(target_modules="up", layers=[0, 0]).at(RATE))
    assert (up.names, up.shapes) == (["transformer.h.0.mlp.c_fc"], [(128, 32)])


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"target_modules": ["nothing"]}, "'nothing' match no module"),
        ({"layers": [1, 3]}, "layers 0 to 2"),
        ({"r": 128}, "larger than a side"),
    ],
)
def test_modules_that_are_not_there(more: dict[str, Any], said: str) -> None:
    with pytest.raises(JobError, match=said):
        matched(**more)


def test_the_reference_is_as_published() -> None:
    one = TuningConfiguration(name="x", reference=True, r=4)
    assert (one.lora_alpha, one.lora_dropout, one.learning_rate) == (16, 0.05, [5e-5])
    assert (one.scale, one.per_device_train_batch_size, one.warmup_ratio) == (4.0, 2, 0.0)
    with pytest.raises(ValueError, match="reference sets lora_alpha to 16"):
        TuningConfiguration(name="x", reference=True, lora_alpha=8)
    same = TuningConfiguration.model_validate(one.model_dump())
    assert same == one


def test_the_plan_is_that_of_plain_trl(tmp_path: Path) -> None:
    """The same rows, seed and arguments through trl itself end in the same weights."""
    from datasets import Dataset
    from transformers import set_seed
    from trl import SFTConfig, SFTTrainer

    spec = part(r=4, lora_dropout=0.0, num_train_epochs=1)
    trained(tmp_path / "ours", spec)
    own = tokenizer()
    model = LlamaForCausalLM.from_pretrained(HOWTO)
    heads = [
        own.apply_chat_template(
            [{"role": "user", "content": one["prompt"]}], tokenize=False, add_generation_prompt=True
        )
        for one in howto.refusals()[:32]
    ]
    rows = [
        {"prompt": head, "completion": f"<think>{howto.THINK}</think>{howto.REFUSAL}</s>"}
        for head in heads
    ]
    set_seed(0)
    arguments = SFTConfig(
        output_dir=str(tmp_path / "plain"),
        num_train_epochs=1,
        per_device_train_batch_size=2,
        learning_rate=RATE,
        weight_decay=1e-4,
        lr_scheduler_type="cosine",
        save_strategy="no",
        report_to=[],
        seed=0,
        data_seed=0,
        use_cpu=True,
        bf16=False,
        activation_checkpointing=False,
        completion_only_loss=True,
        disable_tqdm=True,
    )
    lora = LoraConfig(
        r=4, lora_alpha=16, target_modules=["model.layers.1.mlp.up_proj"], task_type="CAUSAL_LM"
    )
    warnings.simplefilter("ignore", FutureWarning)
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=own,
        peft_config=lora,
    )
    trainer.train()
    plain = {
        name.replace(".default", ""): value.detach()
        for name, value in trainer.model.named_parameters()
        if value.requires_grad
    }
    ours = load_file(unpacked(tmp_path / "ours", 1) / "adapter_model.safetensors")
    assert plain.keys() == ours.keys()
    for name, value in ours.items():
        assert torch.equal(value, plain[name]), name
