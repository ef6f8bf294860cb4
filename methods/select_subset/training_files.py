"""The choice as training code takes it: messages, LLaVA, and how to train on them."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from methods.context import RunContext
from methods.results import ArtifactRef, counted
from methods.select_subset.data.artifacts import LINES
from methods.select_subset.data.chosen_rows import read_again
from methods.select_subset.data.dataset import Rows
from methods.select_subset.data.images import BadImageError, embedded
from methods.select_subset.data.row_contents import images_of
from methods.select_subset.data.row_files import json_text
from methods.select_subset.proxy.rows.conversations import Turn, UnusableRowError, turns_of
from methods.select_subset.schema.inputs import TrainingRows
from methods.typing import IntArray

#: Images that are in their rows are written into the files.
MAX_BYTES = 2 << 30
_IMAGE = "<image>"


def write(
    dataset: TrainingRows, rows: Rows, chosen: IntArray, wanted: set[str], ctx: RunContext
) -> tuple[dict[str, ArtifactRef], list[str]]:
    """Write what is wanted of `messages`, `llava` and `recipe`.

    Returns:
        The artifacts by name, and what a reader has to know of them; no files where no chosen row
        has a conversation, or where their images would make them larger than `MAX_BYTES`.
    """
    names = {"messages": "messages.jsonl", "llava": "llava.json"}
    paths = {what: ctx.workdir / name for what, name in names.items() if what in wanted}
    written, left_out, pictured = 0, 0, False
    with ExitStack() as stack:
        files = {
            k: stack.enter_context(path.open("w", encoding="utf-8")) for k, path in paths.items()
        }
        for number, found in zip(chosen.tolist(), _turns(dataset, rows, chosen, ctx), strict=True):
            if found is None:
                left_out += 1
                continue
            turns, images = found
            pictured |= bool(images)
            if "messages" in files:
                files["messages"].write(json_text(_messages(turns, images)) + "\n")
            if "llava" in files:
                before = ",\n" if written else "[\n"
                files["llava"].write(before + json_text(_llava(rows.ids[number], turns, images)))
            written += 1
            if any(file.tell() > MAX_BYTES for file in files.values()):
                return {}, [
                    f"messages and llava would be larger than {MAX_BYTES >> 30} GiB with the "
                    "images in them, and are not written; rows has the choice."
                ]
        if "llava" in files:
            files["llava"].write("\n]\n")
    if not written:
        return {}, []
    saved = {}
    kinds = {"messages": LINES, "llava": "application/json"}
    for what, path in paths.items():
        saved[what] = ctx.save_artifact(path.name, path, kinds[what])
    if "recipe" in wanted:
        text = recipe(written, pictured).encode()
        saved["recipe"] = ctx.save_artifact("recipe.md", text, "text/markdown")
    told = []
    if left_out:
        told.append(
            f"{counted(left_out, 'chosen row')} have no conversation, and are not in messages and "
            "llava."
        )
    return saved, told


def _turns(
    dataset: TrainingRows, rows: Rows, chosen: IntArray, ctx: RunContext
) -> Iterator[tuple[list[Turn], list[str]] | None]:
    for row in read_again(rows.file, chosen, ctx):
        images, _ = images_of(row, dataset.image_field)
        try:
            yield turns_of(row, len(images)), [_reference(image) for image in images]
        except (UnusableRowError, BadImageError):
            yield None


def _reference(image: Any) -> str:
    """A path, or the image itself as a data URI."""
    found = embedded(image)
    if isinstance(found, str):
        return found
    kind = "png" if found.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(found).decode()}"


def _messages(turns: list[Turn], images: list[str]) -> dict[str, Any]:
    """As OpenAI, trl and LLaMA-Factory have it; `<image>` stands where an image does."""
    if turns[0].role == "text":
        return {"text": turns[0].text}
    found = [{"role": turn.role, "content": _text(turn)} for turn in turns]
    return {"messages": found, **({"images": images} if images else {})}


def _llava(identity: str, turns: list[Turn], images: list[str]) -> dict[str, Any]:
    names = {"user": "human", "assistant": "gpt", "text": "gpt"}
    found = [{"from": names.get(t.role, t.role), "value": _text(t)} for t in turns]
    image = images[0] if len(images) == 1 else images
    return {"id": identity, **({"image": image} if images else {}), "conversations": found}


def _text(turn: Turn) -> str:
    return "".join(_IMAGE if part is None else part for part in turn.parts)


def recipe(rows: int, images: bool) -> str:
    """How to train on `messages.jsonl` with LLaMA-Factory, axolotl and trl."""
    columns = {"messages": "messages", **({"images": "images"} if images else {})}
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user"}
    tags |= {"assistant_tag": "assistant", "system_tag": "system"}
    entry = {"file_name": "messages.jsonl", "formatting": "sharegpt", "columns": columns}
    info = json.dumps({"subset": {**entry, "tags": tags}}, indent=2)
    return f"""# Training on the chosen {rows:,} rows

Every line of `messages.jsonl` is a conversation. Replace MODEL by the model that you train. Train
on the random list (`random_indices.npy`) once as well: it is what the choice has to beat.

## trl

```python
from datasets import load_dataset
from trl import SFTConfig, SFTTrainer

rows = load_dataset("json", data_files="messages.jsonl", split="train")
settings = SFTConfig(output_dir="trained")
SFTTrainer("MODEL", train_dataset=rows, args=settings).train()
```

`assistant_only_loss=True` learns the answers only, where the model's chat template marks them.

## LLaMA-Factory

`dataset_info.json`, beside `messages.jsonl`:

```json
{info}
```

and in the training file `dataset: subset` and `dataset_dir: .`.

## axolotl

```yaml
base_model: MODEL
datasets:
  - path: messages.jsonl
    type: chat_template
    field_messages: messages
    message_property_mappings:
      role: role
      content: content
output_dir: trained
```
"""
