"""Reading a real (tiny) LLaVA: against the model's own eager attention, autograd, official files.

Pitfalls of extraction: 1 pads, 2 images anywhere, 3 grouped queries, positions and windows,
11 order of floats, 12 memory.
"""

import copy
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode

from methods.errors import JobError
from methods.select_subset.proxy.model import attention_capture
from methods.select_subset.proxy.model.forward_readings import activation_layers, read_batch
from methods.select_subset.proxy.model.gradients import TargetGradients
from methods.select_subset.proxy.model.proxy import make_proxy
from methods.select_subset.proxy.rows.conversations import UnusableRowError, turns_of
from methods.select_subset.proxy.rows.encoding import IGNORED, Batch, packed
from tests.methods.select_subset.attention import top_singular_values as exact_values
from tests.methods.select_subset.upstream import token_scores
from tests.toys import tiny_llava as tiny

WORDS = ["what", "is", "it", "a", "b", "c", "d", "e", "f", "g"]
CPU = torch.device("cpu")
GOLDEN = Path(__file__).parents[2] / "golden" / "selection"
ALL = frozenset(
    {"singular_values", "loss", "el2n", "aum", "correct", "gradient_norm", "embedding"}
    | {"activations"}
)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def proxy():
    return tiny.proxy(WORDS)


def row(encoder, question, answer, images):
    places = "<image>\n" * len(images)
    turns = [{"from": "human", "value": places + question}, {"from": "gpt", "value": answer}]
    parsed = turns_of({"conversations": turns}, len(images))
    return encoder(parsed, [tiny.png(seed) for seed in images])


def rows(encoder):
    return [
        row(encoder, "what is it", "a b", [0]),
        row(encoder, "what", "a b c d e f g a b c", [1, 2]),
        row(encoder, "is it", "e e e", []),
        row(encoder, "it", "g", [3]),
    ]


def batch_of(given):
    return Batch.of(given, 0, CPU)


def eager_block(proxy, batch, example):
    """The block of an example from the attentions that transformers itself gives out."""
    model = tiny.model(proxy.model.config.text_config.vocab_size, attention="eager").eval()
    model.load_state_dict(proxy.model.state_dict())
    with torch.no_grad():
        layers = model(**batch.arguments(), output_attentions=True).attentions
    total = sum(layer[example].double().mean(dim=0) for layer in layers)
    image = (batch.ids[example] == 3).numpy()
    first = np.flatnonzero(image)[0]
    text = ~image & batch.valid[example].numpy() & (np.arange(len(image)) > first)
    return total.numpy()[text][:, image]


def test_values_are_those_of_the_eager_model(proxy):
    batch = batch_of(rows(proxy.encoder))
    found = read_batch(proxy, batch, frozenset({"singular_values"}))["singular_values"]
    for example in (0, 1, 3):
        block = eager_block(proxy, batch, example)
        expected = np.linalg.svd(block, compute_uv=False)[:5]
        np.testing.assert_allclose(found[example, : len(expected)], expected, atol=1e-6)
    assert (found[2] == 0).all()


# Pitfall 1: alone, in a batch, beside longer neighbours.
def test_a_row_reads_the_same_alone_and_in_any_batch(proxy):
    given = rows(proxy.encoder)
    together = read_batch(proxy, batch_of(given), ALL)
    reverse = read_batch(proxy, batch_of(given[::-1]), ALL)
    for place, single in enumerate(given):
        alone = read_batch(proxy, batch_of([single]), ALL)
        for name, values in together.items():
            np.testing.assert_allclose(values[place], alone[name][0], atol=2e-6, err_msg=name)
            np.testing.assert_allclose(reverse[name][-1 - place], alone[name][0], atol=2e-6)


@pytest.mark.parametrize("official", [False, True])
def test_pads_change_no_singular_value(proxy, official):
    given = rows(proxy.encoder)
    wanted = frozenset({"singular_values"})
    alone = read_batch(proxy, batch_of(given[:1]), wanted, official=official)
    beside = read_batch(proxy, batch_of(given), wanted, official=official)
    np.testing.assert_allclose(
        beside["singular_values"][0], alone["singular_values"][0], rtol=1e-4, atol=1e-6
    )


# Pitfall 2: the place of the images comes from the tokens, not from a template.
def test_images_are_found_wherever_they_stand(proxy):
    turns = [
        {"role": "system", "content": "a b c"},
        {"role": "user", "content": [{"type": "text", "text": "what"}, {"type": "image"}]},
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "is it"}]},
        {"role": "assistant", "content": "b c"},
    ]
    encoded = proxy.encoder(turns_of({"messages": turns}, 2), [tiny.png(0), tiny.png(1)])
    batch = batch_of([encoded])
    image = batch.ids == 3
    blocks = attention_capture.CrossBlocks(image, batch.valid)
    places = np.flatnonzero(image[0])
    assert blocks.columns[0].tolist() == places.tolist()
    assert len(places) == 2 * tiny.IMAGE_TOKENS
    after = [p for p in range(places[0], len(encoded.ids)) if p not in set(places)]
    assert blocks.rows[0].tolist() == after
    assert (np.flatnonzero(encoded.labels != IGNORED) > places[0]).all()
    found = read_batch(proxy, batch, frozenset({"singular_values"}))["singular_values"][0]
    block = eager_block(proxy, batch, 0)
    np.testing.assert_allclose(found, np.linalg.svd(block, compute_uv=False)[:5], atol=1e-6)


# Pitfall 3: windows of attention come with the model's own mask.
def test_sliding_windows_are_respected():
    from transformers import LlavaConfig, LlavaForConditionalGeneration, MistralConfig

    parts = tiny.processor(WORDS)
    config = tiny.model(len(parts.tokenizer)).config
    text = MistralConfig(
        **{
            **{
                k: getattr(config.text_config, k)
                for k in (
                    "vocab_size",
                    "hidden_size",
                    "intermediate_size",
                    "num_hidden_layers",
                    "num_attention_heads",
                    "num_key_value_heads",
                    "max_position_embeddings",
                )
            },
            "sliding_window": 8,
            "head_dim": 8,
        }
    )
    whole = LlavaConfig(
        vision_config=config.vision_config,
        text_config=text,
        image_token_index=3,
        vision_feature_layer=-1,
    )
    torch.manual_seed(0)
    make = LlavaForConditionalGeneration._from_config
    model = make(copy.deepcopy(whole), attn_implementation=attention_capture.IMPLEMENTATION).eval()
    eager = make(copy.deepcopy(whole), attn_implementation="eager").eval()
    eager.load_state_dict(model.state_dict())
    proxy = make_proxy(model, parts, 512)
    batch = batch_of([row(proxy.encoder, "what is it", "a b c d e f g", [0])])
    found = read_batch(proxy, batch, frozenset({"singular_values"}))["singular_values"][0]
    with torch.no_grad():
        layers = eager(**batch.arguments(), output_attentions=True).attentions
    image = batch.ids[0] == 3
    rows_after = torch.arange(len(image)) > int(torch.nonzero(image).max())
    block = sum(layer[0].double().mean(0) for layer in layers)[rows_after][:, image]
    # The window is shorter than the text, so its last tokens see no image.
    assert (block[-1] == 0).all()
    np.testing.assert_allclose(found, np.linalg.svd(block, compute_uv=False)[:5], atol=1e-6)


def picture(width, height, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_another_family_with_images_of_any_size():
    from transformers import LlavaNextConfig, LlavaNextForConditionalGeneration, LlavaNextProcessor
    from transformers.models.llava_next import image_processing_pil_llava_next as pil

    base = tiny.processor(WORDS)
    grid = [[24, 48], [48, 24], [48, 48]]
    images = pil.LlavaNextImageProcessorPil(
        size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24}, image_grid_pinpoints=grid
    )
    parts = LlavaNextProcessor(
        images,
        base.tokenizer,
        patch_size=tiny.PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    sizes = tiny.model(len(base.tokenizer)).config
    config = LlavaNextConfig(
        vision_config=sizes.vision_config,
        text_config=sizes.text_config,
        image_token_index=3,
        vision_feature_layer=-1,
        image_grid_pinpoints=grid,
    )
    make = LlavaNextForConditionalGeneration._from_config
    torch.manual_seed(0)
    model = make(copy.deepcopy(config), attn_implementation=attention_capture.IMPLEMENTATION).eval()
    eager = make(copy.deepcopy(config), attn_implementation="eager").eval()
    eager.load_state_dict(model.state_dict())
    proxy = make_proxy(model, parts, 512)

    def encoded(answer, *pictures):
        turns = [{"from": "human", "value": "what"}, {"from": "gpt", "value": answer}]
        return proxy.encoder(turns_of({"conversations": turns}, len(pictures)), list(pictures))

    given = [
        encoded("a b", picture(60, 30, 0)),
        encoded("a b c c", picture(24, 24, 1), picture(20, 70, 2)),
    ]
    together = read_batch(proxy, batch_of(given), frozenset({"singular_values"}))
    for place, single in enumerate(given):
        batch = batch_of([single])
        with torch.no_grad():
            layers = eager(**batch.arguments(), output_attentions=True).attentions
        image = batch.ids[0] == 3
        text = ~image & (torch.cumsum(image, 0) > 0)
        block = sum(layer[0].double().mean(0) for layer in layers)[text][:, image]
        expected = np.linalg.svd(block, compute_uv=False)[:5]
        found = together["singular_values"][place]
        np.testing.assert_allclose(found[: len(expected)], expected, atol=1e-6)


@pytest.mark.parametrize("pairs", [1, 300, 1 << 25])
def test_heads_in_turns_give_the_same(proxy, monkeypatch, pairs):
    batch = batch_of(rows(proxy.encoder))
    wanted = frozenset({"singular_values"})
    whole = read_batch(proxy, batch, wanted)
    monkeypatch.setattr(attention_capture, "_PAIRS", {"cpu": pairs, "cuda": pairs})
    turns = read_batch(proxy, batch, wanted)
    np.testing.assert_allclose(turns["singular_values"], whole["singular_values"], atol=1e-7)


# Pitfall 12: no tensor holds all pairs of tokens for all heads, let alone for all layers.
def test_no_tensor_is_as_large_as_the_attention_of_a_layer(monkeypatch):
    proxy = tiny.proxy(WORDS, hidden=16, layers=3, heads=8, kv_heads=4)
    given = [row(proxy.encoder, "what " * 60, "a", [n, n + 1]) for n in range(2)]
    batch = batch_of(given)
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            for value in result if isinstance(result, tuple) else (result,):
                if isinstance(value, torch.Tensor) and 0 not in value.stride():
                    largest = max(largest, value.numel())
            return result

    monkeypatch.setattr(attention_capture, "_PAIRS", {"cpu": 1})
    with Watch():
        read_batch(proxy, batch, frozenset({"singular_values"}))
    length = batch.ids.shape[1]
    one_group = 2 * 2 * length * length  # examples x heads of a group x all pairs
    assert 0 < largest <= one_group < 2 * 8 * length * length


@pytest.mark.parametrize("suffix", ["", "_gqa"])
def test_the_official_matrix_from_official_files(suffix):
    golden = np.load(GOLDEN / "attention_svd.npz", allow_pickle=False)
    q, k = torch.from_numpy(golden["q"]).float(), torch.from_numpy(golden["k" + suffix]).float()
    image = torch.zeros((q.shape[1], q.shape[2]), dtype=torch.bool)
    image[:, 35:611] = True
    blocks = attention_capture.CrossBlocks(image, torch.ones_like(image), skip=1)
    for query, key in zip(q, k, strict=True):
        blocks.add_official(query, key)
    np.testing.assert_allclose(blocks.blocks.numpy(), golden["cross_sum" + suffix], atol=1e-6)
    values = attention_capture.top_singular_values(blocks.blocks, 5).numpy()
    np.testing.assert_allclose(values, golden["svdvals_top5" + suffix], rtol=1e-4)


# Pitfall 11: float32 blocks, float64 values: the same as the reference in float64.
def test_singular_values_against_the_reference():
    rng = np.random.default_rng(0)
    for shape in ((4, 7, 30), (3, 30, 7), (2, 0, 5), (1, 1, 1)):
        blocks = rng.random(shape).astype(np.float32)
        found = attention_capture.top_singular_values(torch.from_numpy(blocks), 5).numpy()
        np.testing.assert_allclose(found, exact_values(blocks, 5), atol=1e-6)


def test_scores_of_answers_are_those_of_the_definitions(proxy):
    given = rows(proxy.encoder)
    found = read_batch(proxy, batch_of(given), ALL)
    logits, labels = [], []
    for single in given:
        batch = batch_of([single])
        with torch.no_grad():
            logits.append(proxy.model(**batch.arguments()).logits[0].double().numpy())
        labels.append(single.labels)
    for name, values in token_scores(logits, labels).items():
        if name in found:
            np.testing.assert_allclose(found[name], values, rtol=2e-5, err_msg=name)
    for place, (logit, label) in enumerate(zip(logits, labels, strict=True)):
        answer = np.flatnonzero(label[1:] != IGNORED)
        right = (logit[answer].argmax(1) == label[1:][answer]).all()
        assert found["correct"][place] == right


def test_the_gradient_norm_is_that_of_autograd(proxy):
    given = rows(proxy.encoder)
    found = read_batch(proxy, batch_of(given), frozenset({"gradient_norm"}))["gradient_norm"]
    weight = proxy.model.get_output_embeddings().weight
    for place, single in enumerate(given):
        batch = batch_of([single])
        logits = proxy.model(**batch.arguments()).logits[0, :-1]
        loss = torch.nn.functional.cross_entropy(logits, batch.labels[0, 1:], ignore_index=IGNORED)
        (gradient,) = torch.autograd.grad(loss, weight)
        assert found[place] == pytest.approx(float(gradient.norm()), rel=1e-4)


@pytest.mark.parametrize("step", [1, 1 << 26])
def test_influences_are_mean_cosines_of_gradients(proxy, monkeypatch, step):
    monkeypatch.setattr("methods.select_subset.proxy.model.gradients.PROBABILITIES", step)
    given = rows(proxy.encoder)
    weight = proxy.model.get_output_embeddings().weight

    def unit(single):
        batch = batch_of([single])
        logits = proxy.model(**batch.arguments()).logits[0, :-1]
        loss = torch.nn.functional.cross_entropy(logits, batch.labels[0, 1:], ignore_index=IGNORED)
        (gradient,) = torch.autograd.grad(loss, weight)
        return gradient.flatten().double() / gradient.double().norm()

    units = torch.stack([unit(single) for single in given])
    tasks = np.array([0, 1, 1])
    target = TargetGradients(proxy, tasks)
    target.add(batch_of(given[:2]), tasks[:2])
    target.add(batch_of(given[2:3]), tasks[2:])
    expected = torch.stack([units[0], units[1:3].mean(dim=0)])
    np.testing.assert_allclose(target.means.flatten(1), expected, atol=1e-6)
    found = target.influences(batch_of(given))
    np.testing.assert_allclose(found, units @ expected.T, atol=1e-5)
    assert found[0, 0] == pytest.approx(1, abs=1e-5)


def test_embeddings_are_means_of_real_tokens(proxy):
    given = rows(proxy.encoder)
    batch = batch_of(given)
    found = read_batch(proxy, batch, frozenset({"embedding", "activations"}))
    with torch.no_grad():
        states = proxy.model.model(**batch.arguments()).last_hidden_state.numpy()
    for place, single in enumerate(given):
        mean = states[place, : len(single.ids)].mean(axis=0)
        np.testing.assert_allclose(found["embedding"][place], mean, atol=1e-5)
    halves = found["activations"].reshape(4, len(activation_layers(proxy.decoder)) * 2, -1)
    np.testing.assert_allclose(np.linalg.norm(halves[[0, 1, 3]], axis=2), 1, rtol=1e-5)
    assert np.isnan(halves[2]).all()


def test_coincide_reads_the_official_layers():
    decoder = tiny.model(20, hidden=8, layers=24, heads=2, kv_heads=2).get_decoder()
    chosen = {id(module) for module in activation_layers(decoder)}
    read = [n for n, layer in enumerate(decoder.layers) if id(layer.self_attn.o_proj) in chosen]
    assert read == [3, 7, 11, 15, 19]


def test_text_and_answers_are_tokens_in_order(proxy):
    encoded = row(proxy.encoder, "what is it", "a b", [0])
    tokens = proxy.encoder._tokenizer.convert_ids_to_tokens(encoded.ids.tolist())
    assert tokens == [
        "<s>",
        "USER:",
        *["<image>"] * 16,
        "what",
        "is",
        "it",
        "ASSISTANT:",
        "a",
        "b",
        "</s>",
    ]
    learnt = [t for t, label in zip(tokens, encoded.labels, strict=True) if label != IGNORED]
    assert learnt == ["a", "b", "</s>"]


_TEMPLATE = (
    "<s> {% for m in messages %}{{ m.role }} : {% for p in m.content %}"
    "{% if p.type == 'image' %}<image>{% else %} {{ p.text }} {% endif %}{% endfor %}"
    "{% if m.role == 'assistant' %} </s> {% endif %}{% endfor %}"
    "{% if add_generation_prompt %}assistant : {% endif %}"
)


def test_the_chat_template_of_the_model_is_used():
    proxy = tiny.proxy([*WORDS, "user", "assistant", ":"], template=_TEMPLATE)
    turns = [
        {"from": "human", "value": "<image>\nwhat"},
        {"from": "gpt", "value": "a b"},
        {"from": "human", "value": "is it"},
        {"from": "gpt", "value": "c"},
    ]
    encoded = proxy.encoder(turns_of({"conversations": turns}, 1), [tiny.png(0)])
    tokens = proxy.encoder._tokenizer.convert_ids_to_tokens(encoded.ids.tolist())
    assert " ".join(t for t in tokens if t != "<image>") == (
        "<s> user : what assistant : a b </s> user : is it assistant : c </s>"
    )
    learnt = [t for t, label in zip(tokens, encoded.labels, strict=True) if label != IGNORED]
    assert learnt == ["a", "b", "</s>", "c", "</s>"]


def test_a_template_that_only_takes_whole_conversations():
    strict = "{% if messages[-1].role != 'assistant' %}{{ raise_exception('no') }}{% endif %}"
    proxy = tiny.proxy([*WORDS, "user", "assistant", ":"], template=strict + _TEMPLATE)
    turns = [{"from": "human", "value": "what"}, {"from": "gpt", "value": "a b"}]
    encoded = proxy.encoder(turns_of({"conversations": turns}, 0), [])
    tokens = proxy.encoder._tokenizer.convert_ids_to_tokens(encoded.ids.tolist())
    learnt = [t for t, label in zip(tokens, encoded.labels, strict=True) if label != IGNORED]
    assert learnt == ["a", "b"]
    more = [*turns, {"from": "human", "value": "is it"}]
    with pytest.raises(UnusableRowError, match="refused by the model's chat template"):
        proxy.encoder(turns_of({"conversations": more}, 0), [])


@pytest.mark.parametrize(
    ("turns", "images", "limit", "message"),
    [
        ([("human", "what")], 0, 99, "no answer to learn from"),
        ([("human", "<image> what"), ("gpt", "a")], 0, 99, "1 places for images but 0"),
        ([("robot", "what"), ("gpt", "a")], 0, 99, "unknown speaker 'robot'"),
        ([("gpt", "a")], 1, 99, "no turn of a user"),
        ([("human", "what is it"), ("gpt", "a")], 0, 4, "no answer within 4 tokens"),
        ([("human", "<image> what"), ("gpt", "a")], 1, 10, "tokens do not fit into 10"),
    ],
)
def test_unusable_conversations(turns, images, limit, message):
    encoder = tiny.proxy(WORDS, max_tokens=limit).encoder
    given = {"conversations": [{"from": who, "value": text} for who, text in turns]}
    with pytest.raises(UnusableRowError, match=message):
        encoder(turns_of(given, images), [tiny.png(0)] * images)


def test_batches_hold_rows_of_like_length():
    lengths = np.random.default_rng(0).integers(1, 50, 200)
    batches = packed(lengths, 100, 8)
    assert sorted(np.concatenate(batches).tolist()) == list(range(200))
    for places in batches:
        assert len(places) == 1 or lengths[places].max() * len(places) <= 100
        assert len(places) <= 8
    assert (np.diff([lengths[places[0]] for places in batches]) <= 0).all()


def test_models_that_cannot_be_read_say_so(proxy):
    batch = batch_of(rows(proxy.encoder))
    image = batch.ids == 3
    blocks = attention_capture.CrossBlocks(image, batch.valid)
    with (
        pytest.raises(JobError, match="q_proj"),
        attention_capture.capturing(torch.nn.Linear(2, 2), blocks, official=True),
    ):
        pass
    # A model that computes its attention in its own way must not read as zeros.
    eager = tiny.model(len(tiny.processor(WORDS).tokenizer), attention="eager").eval()
    other = make_proxy(eager, tiny.processor(WORDS), 512)
    with pytest.raises(JobError, match="cannot be read layer by layer"):
        read_batch(other, batch, frozenset({"singular_values"}))
