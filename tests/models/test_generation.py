"""Generation: equal to re-running the model without a cache, row by row, to the token."""

import pytest
import torch
from calm_models import VOCAB, energy_head, tiny
from hypothesis import given
from hypothesis import strategies as st

from calmkit.chunking import chunk_prompts
from calmkit.sampling import BatchTemperature

prompts = st.lists(
    st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=8), min_size=1, max_size=4
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def literally(model, prompt, max_new_tokens, eos_id):
    """One prompt, no cache: the whole text is read again for every chunk."""
    text = []
    while len(text) < max_new_tokens:
        tokens, real, _ = chunk_prompts([prompt], model.chunk_size, fill_id=0)
        added = torch.tensor(text, dtype=torch.long).view(1, -1, model.chunk_size)
        tokens = torch.cat([tokens, added], dim=1)
        real = torch.cat([real, torch.ones_like(added, dtype=torch.bool)], dim=1)
        state = model.backbone(model.input_encoder(tokens, real))[0, -1]
        text += model.sample_chunks(state, 1)[0].tolist()
    text = text[:max_new_tokens]
    if eos_id in text:
        return text[: text.index(eos_id)], "stop"
    return text, "length"


@given(
    prompts, st.integers(1, 11), st.sampled_from([None, *range(VOCAB)]), st.sampled_from([1, 3, 4])
)
def test_equals_the_literal_loop(prompts, max_new_tokens, eos_id, chunk_size):
    """Any lengths of prompts, in one batch; limits inside a chunk; end tokens inside a chunk."""
    model = tiny(chunk_size, seed=chunk_size)
    states = []  # what the head is asked with: far more sensitive than the tokens
    model.head.map.register_forward_hook(lambda _, args, output: states.append(args[0]))
    got = model.generate(prompts, max_new_tokens=max_new_tokens, eos_id=eos_id)
    steps = len(states)
    for row, (prompt, generation) in enumerate(zip(prompts, got, strict=True)):
        first = len(states)
        want = literally(model, prompt, max_new_tokens, eos_id)
        assert (generation.tokens, generation.finish_reason) == want
        # The longest row decides how many steps are made; each row's are the literal ones.
        alone = torch.stack(states[first : first + steps])
        torch.testing.assert_close(torch.stack(states[:steps])[:, row], alone)


def test_the_stub_writes_varied_text():
    """Otherwise the tests above would say little."""
    texts = tiny().generate([[1], [2, 3], [4, 5, 6, 0]], max_new_tokens=12)
    assert len({tuple(t.tokens) for t in texts}) == 3
    assert all(len(set(t.tokens)) > 1 for t in texts)


def test_end_token_inside_a_chunk_is_cut():
    model = tiny()
    (free,) = model.generate([[1, 2]], max_new_tokens=9)
    inside = next(i for i, t in enumerate(free.tokens) if i % 3 and t not in free.tokens[:i])
    (cut,) = model.generate([[1, 2]], max_new_tokens=9, eos_id=free.tokens[inside])
    assert cut.tokens == free.tokens[:inside] and cut.finish_reason == "stop"
    (limited,) = model.generate([[1, 2]], max_new_tokens=inside, eos_id=free.tokens[inside])
    assert limited.tokens == free.tokens[:inside] and limited.finish_reason == "length"


@pytest.mark.parametrize("sampler", [None, BatchTemperature(power=2, candidates=6)])
def test_same_seed_same_text(sampler):
    model = tiny(build_head=energy_head)

    def run(seed):
        rows = model.generate(
            [[1], [2, 3, 4, 5]], max_new_tokens=20, sampler=sampler, generator=seeded(seed)
        )
        return [row.tokens for row in rows]

    assert run(0) == run(0) != run(1)


def test_prompts_are_left_alone():
    prompts = [[1], [2, 3, 4, 5]]
    tiny().generate(prompts, max_new_tokens=4)
    assert prompts == [[1], [2, 3, 4, 5]]


@pytest.mark.parametrize(
    "prompts, changes, message",
    [
        ([[1], [2, VOCAB]], {}, r"prompts\[1\] must hold token ids in \[0, 7\); got 7"),
        ([[-1]], {}, r"prompts\[0\] must hold token ids in \[0, 7\); got -1"),
        ([[1], []], {}, r"prompts\[1\] must hold at least one token"),
        ([], {}, "prompts must hold at least one prompt"),
        ([[1]], {"max_new_tokens": 0}, "max_new_tokens must be at least 1; got 0"),
        ([[1]], {"eos_id": VOCAB}, r"eos_id must be a token id in \[0, 7\), or None; got 7"),
    ],
)
def test_bad_arguments_are_named(prompts, changes, message):
    with pytest.raises(ValueError, match=message):
        tiny().generate(prompts, **{"max_new_tokens": 3, **changes})


@pytest.mark.parametrize("max_new_tokens", [1, 7, 12])
def test_stream_gives_the_tokens_of_generate(max_new_tokens):
    model = tiny(build_head=energy_head)
    for seed in range(5):

        def written(eos_id, seed=seed):
            options = {"max_new_tokens": max_new_tokens, "eos_id": eos_id}
            (whole,) = model.generate([[1, 2]], **options, generator=seeded(seed))
            assert list(model.stream([1, 2], **options, generator=seeded(seed))) == whole.tokens
            return whole.tokens

        free = written(None)
        assert len(free) == max_new_tokens
        assert written(free[-1]) == free[: free.index(free[-1])]


def test_stream_computes_a_chunk_only_when_it_is_asked_for():
    model = tiny().train()
    calls = []
    model.head.map.register_forward_hook(lambda *_: calls.append(model.head.training))
    tokens = model.stream([1, 2], max_new_tokens=9)
    assert calls == []
    for count in range(1, 10):
        next(tokens)
        assert calls == [False] * -(-count // 3)
        assert model.head.training and torch.is_grad_enabled()


def test_stream_names_a_mistake_before_the_first_token():
    with pytest.raises(ValueError, match=r"prompts\[0\] must hold token ids in \[0, 7\); got 9"):
        tiny().stream([9], max_new_tokens=3)
    with pytest.raises(ValueError, match=r"prompts\[0\] must hold at least one token"):
        tiny().stream([], max_new_tokens=3)
