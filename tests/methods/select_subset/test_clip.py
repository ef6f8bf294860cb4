"""clip_score from a (tiny) CLIP of transformers, against the model's own outputs."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from transformers import AutoModel, AutoProcessor

from methods.errors import JobError
from methods.select_subset.spec import Spec
from tests.methods.select_subset.proxied import IMAGES, WORDS, conversation, inline
from tests.methods.select_subset.selecting import array, select
from tests.toys import tiny_clip, tiny_llava


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return str(tiny_clip.save(tmp_path_factory.mktemp("clip"), WORDS))


def request(clip, **more):
    return {
        "dataset": {"rows": inline()},
        "model": {"name": clip},
        "budget": {"count": 8},
        "method": "clip_score",
    } | more


def own_score(clip, text, images):
    """The cosine by the model's own processor and forward pass, a pair at a time."""
    model, processor = AutoModel.from_pretrained(clip), AutoProcessor.from_pretrained(clip)
    found = []
    for image in images:
        given = processor(
            text=[text],
            images=[Image.open(io.BytesIO(image))],
            truncation=True,
            max_length=tiny_clip.LONGEST,
            return_tensors="pt",
        )
        with torch.no_grad():
            output = model(**given)
        found.append(float(output.text_embeds[0] @ output.image_embeds[0]))
    return found


def test_scores_are_those_of_the_model(clip, tmp_path):
    result = select(tmp_path, **request(clip))
    scores = array(tmp_path, result, "scores")
    by_row = dict(zip(scores["row"].tolist(), scores["score"].tolist(), strict=True))
    for row in (0, 1, 4, 23):
        turns = conversation(row, False)["conversations"]
        text = " ".join(turn["value"] for turn in turns)
        assert by_row[row] == pytest.approx(own_score(clip, text, [tiny_llava.png(row)])[0])
    ranked = sorted(range(IMAGES), key=lambda row: -by_row[row])
    chosen = [row for row in result.indices if row < IMAGES]
    assert chosen == ranked[: len(chosen)]
    # Rows without an image have no score; some are drawn, by their share.
    assert 0 < len(chosen) < 8
    assert all(np.isnan(by_row[row]) for row in range(IMAGES, IMAGES + 4))
    assert result.proxy.rows_read == IMAGES


def test_several_images_count_by_the_mean_of_their_unit_embeddings(clip, tmp_path):
    rows = inline()
    rows[3] |= {"image": None, "images": [rows[3]["image"], rows[4]["image"]]}
    result = select(tmp_path, **request(clip, dataset={"rows": rows}))
    values = array(tmp_path, result, "features")
    turns = conversation(3, False)["conversations"]
    text = " ".join(turn["value"] for turn in turns)
    both = own_score(clip, text, [tiny_llava.png(3), tiny_llava.png(4)])
    inner = values["image_embedding"][3] @ values["text_embedding"][3]
    assert inner == pytest.approx(np.mean(both), abs=1e-6)


def test_long_texts_are_cut_and_batches_change_nothing(clip, tmp_path):
    rows = inline()
    rows[0]["conversations"][1]["value"] = "a b c " * 40
    whole = select(tmp_path / "whole", **request(clip, dataset={"rows": rows}))
    spec = request(clip, dataset={"rows": rows})
    spec["model"] |= {"batch_tokens": 16, "shard_rows": 1}
    single = select(tmp_path / "single", **spec)
    for name in ("image_embedding", "text_embedding"):
        one = array(tmp_path / "single", single, "features")[name]
        np.testing.assert_allclose(
            one, array(tmp_path / "whole", whole, "features")[name], atol=2e-6
        )


def test_what_does_not_fit_is_refused(clip, tmp_path):
    spec = request(clip)
    spec["model"] |= {"fine_tune": {"epochs": 2}}
    with pytest.raises(ValidationError, match="a CLIP is not fine-tuned"):
        Spec.model_validate(spec)
    rows = [conversation(n, False) for n in range(9)]
    with pytest.raises(JobError, match="clip_score needs images"):
        select(tmp_path, **request(clip, dataset={"rows": rows}))
    llava = str(tiny_llava.save(tmp_path / "llava", WORDS, hidden=16))
    with pytest.raises(JobError, match="is no CLIP but llava") as caught:
        select(tmp_path, **request(llava))
    assert caught.value.code == "model_rejected_request"
    broken = inline()
    broken[5]["image"] = "data:image/png;base64,AAAA"
    with pytest.raises(JobError, match=r"the first is row 5 \(image\): 0 cannot be decoded"):
        select(tmp_path, **request(clip, dataset={"rows": broken}))
