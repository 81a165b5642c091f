"""Small tokenizers of the kinds that published models have, as `tokenizer.json` texts."""

import json

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

TEXT = [
    "The quick brown fox jumps over the lazy dog, 1234 times; isn't it?\n\n",
    "def f(x):\n    return x ** 2  # squared\n\n\tnaïve café — 日本語 😀\n",
] * 4

LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _learnt(tokenizer, size, **options):
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False, **options)
    tokenizer.train_from_iterator(TEXT, trainer)
    return tokenizer


def like_gpt_2():
    """Byte-level; the end of text has the last id."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    _learnt(tokenizer, 330, initial_alphabet=alphabet)
    tokenizer.add_special_tokens(["<|separator|>", "<|endoftext|>"])
    return tokenizer.to_str()


def like_llama_3():
    """Split by a pattern, then byte-level; added tokens, special and not; a gap in the ids."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    split = pre_tokenizers.Split(Regex(LLAMA_3), "isolated", invert=False)
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_only])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    _learnt(tokenizer, 320, initial_alphabet=alphabet)
    tokenizer.add_special_tokens(["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"])
    tokenizer.add_tokens([AddedToken("<tool>", normalized=False)])
    begin = tokenizer.token_to_id("<|begin_of_text|>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", begin)]
    )
    tokenizer.enable_truncation(5)
    tokenizer.enable_padding(pad_token="<|eot_id|>", length=9)
    return tokenizer.to_str()


def like_llama_2():
    """Spaces as U+2581, one before each text; unknown characters as bytes; no pre-tokenizer."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    content = json.loads(_learnt(tokenizer, 380, special_tokens=special).to_str())
    content["added_tokens"] = content["added_tokens"][:3]  # bytes are none
    return json.dumps(content)


def with_end_among_its_words():
    """A model that has its end token among the pieces of text."""
    pieces = [("<unk>", 0.0), ("</s>", 0.0), *((letter, -3.0) for letter in "abc</s> >")]
    tokenizer = Tokenizer(models.Unigram(list(dict(pieces).items()), unk_id=0))
    tokenizer.decoder = decoders.Fuse()
    return tokenizer.to_str()


LOSSLESS = {"gpt_2": like_gpt_2, "llama_3": like_llama_3, "llama_2": like_llama_2}
