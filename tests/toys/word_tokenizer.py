"""A tokenizer of whole words, for models that are made on the spot."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from transformers import PreTrainedTokenizerFast

_SPECIAL = ["<unk>", "<s>", "</s>", "<pad>"]


def word_tokenizer(
    vocabulary: Sequence[str], special: Sequence[str] = (), shown: Sequence[str] = ()
) -> PreTrainedTokenizerFast:
    """One token a word, words being what stands between spaces.

    Args:
        special: tokens of a template; a decoded text does not show them. They need no spaces.
        shown: others that need no spaces.
    """
    names = [*_SPECIAL, *special]
    words = {word: k for k, word in enumerate([*names, *vocabulary])}
    backend = Tokenizer(WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = Split(" ", "removed")
    if special:
        backend.add_special_tokens([AddedToken(name, normalized=False) for name in names])
    backend.add_tokens(list(shown))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
    )
