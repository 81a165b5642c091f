"""Generation: equal to re-running the model without a cache, row by row, to the token."""

import inspect
import random
import threading

import pytest
import torch
from calm_models import VOCAB, energy_head, tiny
from hypothesis import given
from hypothesis import strategies as st
from seeding import seeded

from calmkit.chunking import chunk_pair, chunk_prompts
from calmkit.cli.generate import _options
from calmkit.models import rank
from calmkit.sampling import (
    BatchTemperature,
    ExactTemperature,
    MostFrequent,
    PlainSampler,
    SampledChunks,
)
from calmkit.typing import checks_are_on

prompts = st.lists(
    st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=12), min_size=1, max_size=4
)


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
    together = list(states)
    for row, (prompt, generation) in enumerate(zip(prompts, got, strict=True)):
        first = len(states)
        want = literally(model, prompt, max_new_tokens, eos_id)
        assert (generation.tokens, generation.finish_reason) == want
        # A row that has ended is not asked for any more, and the others keep their order.
        read = len(generation.tokens) + (generation.finish_reason == "stop")
        assert generation.chunks == generation.draws == -(-read // chunk_size)
        assert generation.unsettled == 0
        for step, alone in enumerate(states[first : first + generation.chunks]):
            going_on = [r for r, other in enumerate(got) if other.chunks > step]
            torch.testing.assert_close(together[step][going_on.index(row)], alone)


def test_as_many_tokens_as_the_command_unless_told():
    """`generate`, `stream` and `calmkit generate` have one default."""
    limit = inspect.signature(_options).parameters["max_new_tokens"].default
    model, generator = tiny(2), torch.Generator()
    (written,) = model.generate([[1, 2]], generator=generator.manual_seed(0))
    assert len(written.tokens) == limit == 100
    assert list(model.stream([1, 2], generator=generator.manual_seed(0))) == written.tokens


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


@pytest.mark.parametrize("sampler", [None, BatchTemperature(0.5, candidates=6)])
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
    model.head.map.register_forward_hook(lambda part, *_: calls.append(part.training))
    tokens = model.stream([1, 2], max_new_tokens=9)
    assert calls == []
    for count in range(1, 10):
        next(tokens)
        assert calls == [False] * -(-count // 3)
        assert model.head.training and torch.is_grad_enabled()


def test_threads_that_write_at_once_are_all_in_evaluation_mode():
    """The first ends while the second is at its first chunk; the model is in training mode."""
    model, seen = tiny().train(), []
    second_began, first_ended = threading.Event(), threading.Event()

    def write(name):
        def sampler(draw, generator):
            if name == "second":
                second_began.set()
            (second_began if name == "first" else first_ended).wait(20)
            return PlainSampler()(draw, generator)

        model.generate([[1, 2]], max_new_tokens=9, sampler=sampler)

    def first():
        write("first")
        first_ended.set()

    model.backbone.norm.register_forward_hook(lambda part, *_: seen.append(part.training))
    threads = [threading.Thread(target=first), threading.Thread(target=write, args=["second"])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(40)
    assert seen == [False] * 6 and model.backbone.norm.training


def test_training_may_go_on_while_a_text_is_written():
    """What is written is of the weights as they are, and in evaluation mode."""
    model = tiny().eval()
    (whole,) = model.generate([[1, 2]], max_new_tokens=9)
    stream = model.train().stream([1, 2], max_new_tokens=9)
    tokens = [next(stream)]
    model.train()
    assert tokens + list(stream) == whole.tokens


@pytest.mark.parametrize(
    ("choose", "match"),
    [
        (lambda tokens: tokens[..., :2], r"chunks of shape \(2, 3\), one a row; got \(2, 2\)"),
        (lambda tokens: tokens[:1], r"chunks of shape \(2, 3\), one a row; got \(1, 3\)"),
        (lambda tokens: tokens + 7, r"token ids in \[0, 7\); got"),
        (lambda tokens: tokens - 7, r"token ids in \[0, 7\); got -"),
    ],
)
def test_a_sampler_that_chooses_other_things_is_named(choose, match):
    def sampler(draw, generator):
        tokens = choose(draw(1)[0])
        ones = torch.ones(len(tokens), dtype=torch.long)
        return SampledChunks(tokens, ones, ones.bool())

    with pytest.raises(ValueError, match="sampler must choose " + match):
        tiny().generate([[1], [2]], max_new_tokens=9, sampler=sampler)


def test_shapes_are_checked_for_two_chunks_and_outside_of_steps():
    def sampler(draw, generator):
        checked.append(checks_are_on())
        return PlainSampler()(draw, generator)

    checked, between = [], []
    for _ in tiny().stream([1, 2], max_new_tokens=12, sampler=sampler):
        between.append(checks_are_on())
    assert checked == [True, True, False, False]
    assert between == [True] * 12 and checks_are_on()


@pytest.mark.parametrize("wrong", [1.7, 2.0, True, "3", None, torch.tensor(1)])
def test_every_token_of_a_prompt_is_looked_at_and_nothing_is_drawn(wrong):
    prompt = [1] * 50 + [wrong] + [1] * 50
    before = random.getstate()
    for call in (
        lambda: tiny().generate([[1], prompt], max_new_tokens=3),
        lambda: tiny().stream(prompt, max_new_tokens=3),
        lambda: rank(tiny(), prompt, [[1]], num_samples=16),
        lambda: rank(tiny(), [1], [prompt], num_samples=16),
        lambda: chunk_prompts.__wrapped__([prompt], 3, fill_id=0),
        lambda: chunk_pair.__wrapped__([1], prompt, 3, fill_id=0, end_id=None),
    ):
        with pytest.raises(ValueError, match="must hold token ids, each an int; got"):
            call()
    tiny().generate([[1]], max_new_tokens=3)
    assert random.getstate() == before


def test_stream_names_a_mistake_before_the_first_token():
    with pytest.raises(ValueError, match=r"prompts\[0\] must hold token ids in \[0, 7\); got 9"):
        tiny().stream([9], max_new_tokens=3)
    with pytest.raises(ValueError, match=r"prompts\[0\] must hold at least one token"):
        tiny().stream([], max_new_tokens=3)


@pytest.mark.parametrize("eos_id", [None, 3])
def test_text_is_the_same_in_any_company(eos_id):
    """Alone or in a ragged batch, from which rows drop out; bitwise tokens in float64."""
    model = tiny()
    prompts = [[1], [2, 3], [4, 5, 6], [0, 1, 2, 3], [6, 5, 4, 3, 2], [1] * 6, [2] * 7, [5] * 9]
    options = {"max_new_tokens": 17, "eos_id": eos_id}
    together = model.generate(prompts, **options)
    alone = [model.generate([prompt], **options)[0] for prompt in prompts]
    assert together == alone
    if eos_id is not None:
        assert len({text.chunks for text in together}) > 2


@pytest.mark.parametrize("length", range(1, 10))
def test_a_text_goes_on_wherever_it_is_cut(length):
    """What the model wrote may come back as part of the prompt, at any chunk's edge."""
    model = tiny()
    prompt = [1, 2, 3, 4, 5, 6, 0, 1, 2][:length]
    (whole,) = model.generate([prompt], max_new_tokens=12)
    for chunks in range(1, 4):
        grown = prompt + whole.tokens[: 3 * chunks]
        (rest,) = model.generate([grown], max_new_tokens=12 - 3 * chunks)
        assert rest.tokens == whole.tokens[3 * chunks :]


@pytest.mark.parametrize(
    "sampler",
    [
        PlainSampler(),
        BatchTemperature(0.5, candidates=20),
        BatchTemperature(0.4, candidates=20),
        BatchTemperature(0.5, candidates=40),
        BatchTemperature(0.5, candidates=20, top_p=0.8),
        ExactTemperature(0.7, max_draws=100_000),
        MostFrequent(20),
    ],
    ids=lambda sampler: type(sampler).__name__,
)
def test_every_sampler_writes_and_counts_its_draws(sampler):
    model = tiny(build_head=energy_head)
    rows = model.generate(
        [[1], [2, 3, 4, 5]], max_new_tokens=12, sampler=sampler, generator=seeded()
    )
    for row in rows:
        assert len(row.tokens) == 12 and row.chunks == 4
        assert row.draws >= 4 and 0 <= row.unsettled <= 4
    if isinstance(sampler, MostFrequent):
        assert [row.draws for row in rows] == [80, 80]


def test_unsettled_chunks_are_counted():
    model = tiny()  # its draws are all equal
    (row,) = model.generate([[1]], max_new_tokens=9, sampler=BatchTemperature(0.5, 4))
    assert (row.draws, row.unsettled) == (12, 0)

    def never(draw, generator=None):
        chosen = BatchTemperature(0.5, 4)(draw, generator)
        return SampledChunks(chosen.tokens, chosen.draws, torch.zeros_like(chosen.settled))

    (row,) = model.generate([[1]], max_new_tokens=9, sampler=never)
    assert (row.draws, row.unsettled) == (12, 3)


def test_rows_that_have_ended_leave_the_batch():
    """When half of it has ended: the backbone then reads fewer rows."""
    model = tiny()
    prompts = [[1], [2, 3], [4, 5, 6], [0, 1, 2, 3], [6, 5, 4, 3, 2], [1] * 6, [2] * 7, [5] * 9]
    rows, heads = [], []
    model.backbone.register_forward_hook(lambda _, args, output: rows.append(len(output)))
    model.head.map.register_forward_hook(lambda _, args, output: heads.append(len(output)))
    got = model.generate(prompts, max_new_tokens=30, eos_id=3)
    steps = max(one.chunks for one in got)
    left = [sum(one.chunks > step for one in got) for step in range(steps)]
    assert heads == left
    batch = 8
    for step, count in enumerate(left[1:], start=1):
        batch = count if 2 * count <= batch else batch
        assert rows[step] == batch
    assert rows[-1] < 8


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("sampler", [None, BatchTemperature(0.5, 40)])
def test_an_end_token_at_each_place_of_a_chunk(place, sampler):
    """The text is what was written before it, in `generate` and in `stream`."""
    model = tiny(build_head=energy_head)
    found = 0
    for seed in range(3):
        options = {"max_new_tokens": 9, "sampler": sampler}
        (free,) = model.generate([[1, 2]], **options, generator=seeded(seed))
        for end, token in enumerate(free.tokens):
            if end % 3 != place or token in free.tokens[:end]:
                continue
            found += 1
            options["eos_id"] = token
            (cut,) = model.generate([[1, 2]], **options, generator=seeded(seed))
            assert (cut.tokens, cut.finish_reason) == (free.tokens[:end], "stop")
            assert cut.chunks == end // 3 + 1
            streamed = model.stream([1, 2], **options, generator=seeded(seed))
            assert list(streamed) == cut.tokens
    assert found >= 2


@pytest.mark.parametrize("length", range(1, 10))
def test_no_id_stands_for_padding(length, monkeypatch):
    """Whatever id fills the grid, the text is the same; and every id can be read and written."""
    model = tiny()
    prompts = [([0, 6, 3, 5, 1, 2, 4, 0, 6])[:length], [3]]
    texts = []
    for fill_id in range(VOCAB):
        monkeypatch.setattr(
            "calmkit.models.base.chunk_prompts",
            lambda prompts, size, *, fill_id, chosen=fill_id: chunk_prompts(
                prompts, size, fill_id=chosen
            ),
        )
        texts.append([row.tokens for row in model.generate(prompts, max_new_tokens=12)])
    assert all(text == texts[0] for text in texts)
