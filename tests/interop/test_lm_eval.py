"""CalmLM, against direct computation: a loop over tokens for likelihoods, `generate` for texts."""

import math

import pytest
import torch
from calm_models import energy_head, tiny
from harness_tasks import QUESTIONS, write_tasks

from calmkit.backbones import TransformerBackbone
from calmkit.models import Generation, TokenLM, rank

pytest.importorskip("lm_eval")

from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.tasks import TaskManager

from calmkit.interop.lm_eval import CalmLM, NoLikelihoodError
from calmkit.interop.lm_eval.task_settings import task_settings
from calmkit.interop.lm_eval.until import before, write_until


class Letters:
    """A tokenizer of a few letters; id 0 ends a document."""

    end_id = 0
    letters = "?abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ.\n"

    def encode(self, text):
        return [self.letters.index(letter) for letter in text]

    def decode(self, tokens):
        return "".join(self.letters[token] for token in tokens if token)


class Few(Letters):
    """As many letters as the tiny CALM has tokens."""

    letters = "?ab cd\n"


class Scripted:
    """Continues each prompt, told by its first token, with a text; `?` is the end token."""

    chunk_size = 1

    def __init__(self, texts):
        self.texts, self.calls = texts, []

    def generate(self, prompts, *, max_new_tokens, eos_id, sampler, generator):
        self.calls.append(([prompt[0] for prompt in prompts], max_new_tokens))
        written = []
        for first, *new in prompts:
            text, ended, _ = self.texts[first][len(new) :][:max_new_tokens].partition("?")
            reason = "stop" if ended else "length"
            written.append(Generation(Letters().encode(text), reason, 0, 0, 0))
        return written


def softmax_model(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return TokenLM(len(Letters.letters), backbone=TransformerBackbone(16, depth=2, heads=2))


def requests(kind, *arguments, questions=None):
    questions = questions or range(len(arguments))
    return [
        Instance(kind, {}, given, place, ("task", question, 1))
        for place, (given, question) in enumerate(zip(arguments, questions, strict=True))
    ]


@torch.no_grad()
def next_logs(model, tokens):
    """Log-probabilities of the token after some tokens, from the whole text and nothing else."""
    real = torch.ones(1, len(tokens), 1, dtype=torch.bool)
    vectors = model.input_encoder(torch.tensor(tokens).view(1, -1, 1), real)
    return model.logits(model.backbone(vectors)[0, -1]).log_softmax(dim=-1)


def likelihood_by_loop(model, context, continuation):
    """Sum of log p of each token, and whether each is the likeliest."""
    total, greedy, tokens = 0.0, True, [0, *Letters().encode(context)]
    for token in Letters().encode(continuation):
        logs = next_logs(model, tokens)
        total += float(logs[token])
        greedy &= int(logs.argmax()) == token
        tokens.append(token)
    return total, greedy


def greedy_text(model, context, count):
    tokens = [0, *Letters().encode(context)]
    for _ in range(count):
        tokens.append(int(next_logs(model, tokens).argmax()))
    return Letters().decode(tokens[-count:])


class TestLikelihoods:
    @pytest.mark.parametrize("batch_size", [1, 2, 16])
    def test_equal_a_loop_over_tokens(self, batch_size):
        model = softmax_model()
        likeliest = greedy_text(model, "The ", 3)
        assert likeliest.isprintable() and "?" not in likeliest  # otherwise it says little
        pairs = [("A list", " holds"), ("", "x"), ("The value of x is", " seven"),
                 ("The", f" {likeliest}"), ("Names", "."), ("The ", likeliest)]  # fmt: skip
        lm = CalmLM(model, Letters(), batch_size=batch_size)
        found = lm.loglikelihood(requests("loglikelihood", *pairs), disable_tqdm=True)
        # A context's last space is read as the continuation's first.
        split = [*pairs[:-1], ("The", f" {likeliest}")]
        expected = [likelihood_by_loop(model, *pair) for pair in split]
        assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]
        torch.testing.assert_close(
            torch.tensor([value for value, _ in found]), torch.tensor([v for v, _ in expected])
        )

    def test_a_continuation_of_likeliest_tokens_is_greedy(self):
        model = softmax_model()
        text = greedy_text(model, "A list", 4)
        lm = CalmLM(model, Letters())
        asked = requests("loglikelihood", ("A list", text), ("A list", text[:-1] + "z"))
        assert [greedy for _, greedy in lm.loglikelihood(asked, True)] == [True, False]

    def test_of_whole_texts(self):
        model, texts = softmax_model(), ["Names are bound.", "", "A"]
        lm = CalmLM(model, Letters())
        found = lm.loglikelihood_rolling(
            requests("loglikelihood_rolling", *((text,) for text in texts)), True
        )
        expected = [likelihood_by_loop(model, "", text)[0] for text in texts]
        torch.testing.assert_close(torch.tensor(found), torch.tensor(expected))

    def test_positions_that_do_not_suffice(self):
        """A whole text is cut into windows, a context on its left."""
        model, text = softmax_model(), "abcdefghijk"
        model.backbone.max_positions = 4
        lm = CalmLM(model, Letters())
        rolling = requests("loglikelihood_rolling", (text,))
        found = lm.loglikelihood_rolling(rolling, True)
        ids = Letters().encode(text)
        # Windows of four predicted tokens, the last of which reads as many as fit before.
        spans = [([0], ids[:4]), ([ids[3]], ids[4:8]), ([ids[6], ids[7]], ids[8:])]
        expected = 0.0
        for context, continuation in spans:
            for place, token in enumerate(continuation):
                expected += float(next_logs(model, [*context, *continuation[:place]])[token])
        assert found == [pytest.approx(expected)]
        found = lm.loglikelihood(requests("loglikelihood", (text, "xy")), True)
        expected = 0.0
        x, y = Letters().encode("xy")
        expected = next_logs(model, ids[-3:])[x] + next_logs(model, [*ids[-3:], x])[y]
        assert found[0][0] == pytest.approx(float(expected)) and lm.cut_contexts == 1


class TestModelsWithoutLikelihoods:
    pairs = (("ab", "cd"), ("ab", "dc"), ("ab", "a"))

    def test_are_refused_with_the_reason(self):
        lm = CalmLM(tiny(), Few())
        with pytest.raises(NoLikelihoodError, match=r"a CALM gives draws.*give ranking_samples"):
            lm.loglikelihood(requests("loglikelihood", *self.pairs))
        with pytest.raises(NoLikelihoodError, match="calmkit evaluate"):
            lm.loglikelihood_rolling(requests("loglikelihood_rolling", ("ab",)))

    def test_rank_choices_by_the_brier_score(self):
        model = tiny(build_head=energy_head)
        lm = CalmLM(model, Few(), ranking_samples=16, seed=3)
        asked = requests("loglikelihood", *self.pairs, questions=[0, 0, 0])
        found = lm.loglikelihood(asked, True)
        generator = torch.Generator().manual_seed(3)
        for (context, continuation), (value, greedy) in zip(self.pairs, found, strict=True):
            prompt, text = [0, *Few().encode(context)], Few().encode(continuation)
            (ranked,) = rank(model, prompt, [text], num_samples=16, generator=generator)
            assert (value, greedy) == (-ranked.score, False)
        assert lm.questions == 1
        assert found == lm.loglikelihood(asked, True), "the same seed gives the same answers"

    def test_questions_that_draws_cannot_decide_are_counted(self):
        """All draws of this head are equal, so only a choice that they hit has another score."""
        model = tiny()
        (drawn,) = model.generate([[0, 1, 2]], max_new_tokens=3)
        hit, others = Few().decode(drawn.tokens), ["aba", "cdc", "dd "]
        assert len(hit) == 3 and hit not in others
        lm = CalmLM(model, Few(), ranking_samples=16)
        asked = [("ab", hit), ("ab", others[0]), ("ab", others[1]), ("ab", others[2])]
        found = lm.loglikelihood(requests("l", *asked, questions=[0, 0, 1, 1]), True)
        assert (lm.undecided, lm.questions) == (1, 2)
        assert [value for value, _ in found] == [0, -2, -2, -2]
        assert lm.get_model_info()["undecided_questions"] == 1

    def test_single_texts_cannot_be_ranked(self):
        lm = CalmLM(tiny(), Few(), ranking_samples=16)
        with pytest.raises(NoLikelihoodError, match="Task task has single texts and no choices"):
            lm.loglikelihood(requests("loglikelihood", *self.pairs, questions=[0, 0, 1]))


class TestGeneration:
    @pytest.mark.parametrize("model", [softmax_model(), tiny()], ids=["TokenLM", "CALM"])
    @pytest.mark.parametrize("count", [1, 47, 200])
    def test_rounds_give_the_text_of_one_generation(self, model, count):
        """With a sampler that leaves nothing to chance; prompts of different lengths."""
        greedy = model.sampler_at(0, candidates=4)
        tokenizer = Letters() if model.chunk_size == 1 else Few()
        prompts = [[0, 1, 2, 3, 4], [0], [0, 5, 5]]
        settings = {"max_new_tokens": count, "sampler": greedy}
        whole = model.generate(prompts, eos_id=0, **settings)
        generator = torch.Generator()
        texts = write_until(model, tokenizer, prompts, until=[], generator=generator, **settings)
        assert texts == [tokenizer.decode(one.tokens) for one in whole]

    def test_rows_that_have_ended_leave_the_batch(self):
        """One row meets a stop text in the second round, one the end token, one the limit."""
        model = Scripted({1: "b" * 15 + "stop" + "b" * 99, 2: "cc?", 3: "d" * 99})
        texts = write_until(
            model, Letters(), [[1], [2], [3]], until=["", "stop", "never"], max_new_tokens=90,
            sampler=None, generator=torch.Generator(),
        )  # fmt: skip
        assert texts == ["b" * 15, "cc", "d" * 90]
        assert model.calls == [([1, 2, 3], 16), ([1, 3], 32), ([3], 42)]

    def test_the_first_of_several_stop_texts_counts(self):
        assert before("one two three", ["three", "two", ""]) == "one "
        assert before("one", ["two"]) == "one" and before("", ["x"]) == ""

    def test_answers_come_in_order_whatever_the_batch(self):
        """Each request has settings and a length of its own."""
        model = softmax_model()
        asked = requests(
            "generate_until",
            ("a", {"until": ["q"], "max_gen_toks": 5}),
            ("abc", {"until": [], "max_gen_toks": 2}),
            ("ab", {"until": ["q"], "max_gen_toks": 5}),
            ("", {"until": []}),
        )
        expected = [greedy_text(model, "a", 5), greedy_text(model, "abc", 2),
                    greedy_text(model, "ab", 5), greedy_text(model, "", 7)]  # fmt: skip
        expected = [before(expected[0], "q"), expected[1], before(expected[2], "q"), expected[3]]
        for batch_size in (1, 3):
            lm = CalmLM(model, Letters(), batch_size=batch_size, max_new_tokens=7)
            assert lm.generate_until(asked, True) == expected

    def test_a_seed_repeats_texts(self):
        model = tiny(build_head=energy_head)
        asked = requests("generate_until", ("ab", {"do_sample": True, "max_gen_toks": 30}))

        def text(seed):
            return CalmLM(model, Few(), seed=seed).generate_until(asked, True)

        assert text(1) == text(1) != text(2)

    def test_contexts_are_cut_to_the_positions(self):
        model = softmax_model()
        model.backbone.max_positions = 8
        lm = CalmLM(model, Letters())
        asked = requests("generate_until", ("abcdefghij", {"max_gen_toks": 3}))
        tokens = Letters().encode("fghij")
        for _ in range(3):
            tokens.append(int(next_logs(model, tokens).argmax()))
        assert lm.generate_until(asked, True) == [Letters().decode(tokens[5:])]
        assert lm.cut_contexts == 1
        with pytest.raises(
            ValueError, match="max_gen_toks must leave room for a context in the 8"
        ):
            lm.generate_until(requests("generate_until", ("a", {"max_gen_toks": 8})), True)


class TestSettings:
    @pytest.mark.parametrize(
        ("asked", "own", "temperature"),
        [
            ({}, None, 0.0),
            ({"do_sample": False, "temperature": 0.7}, None, 0.0),
            ({"do_sample": True}, None, 1.0),
            ({"do_sample": True, "temperature": 0.7}, None, 0.7),
            ({"temperature": 0.7}, None, 0.7),
            ({}, 0.5, 0.5),
            ({"do_sample": True, "temperature": 0.7}, 0.5, 0.5),
            ({"do_sample": True, "temperature": 0.7}, 0.0, 0.0),
        ],
    )
    def test_a_temperature_is_the_tasks_or_the_models(self, asked, own, temperature):
        settings = task_settings(asked, temperature=own, max_new_tokens=9)
        assert settings["temperature"] == temperature
        assert settings["max_gen_toks"] == 9 and settings["until"] == []

    def test_unknown_settings_are_refused(self):
        with pytest.raises(ValueError, match="got num_beams, penalty"):
            task_settings({"penalty": 2, "num_beams": 3}, temperature=None, max_new_tokens=9)

    @pytest.mark.parametrize(
        ("arguments", "text"),
        [
            ({"temperature": 1.5}, r"temperature must be in \(0, 1\]"),
            ({"temperature": 0.1, "candidates": 9}, "at least 1 / temperature = 10, or"),
            ({"batch_size": 0}, "batch_size must be at least 1; got 0"),
            ({"max_new_tokens": 0}, "max_new_tokens must be at least 1; got 0"),
            ({"seed": -1}, "seed must be at least 0; got -1"),
        ],
    )
    def test_numbers_out_of_range_are_refused(self, arguments, text):
        with pytest.raises(ValueError, match=text):
            CalmLM(tiny(), Few(), **arguments)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """All local tasks, by a softmax."""
    folder = write_tasks(tmp_path_factory.mktemp("tasks"))
    model = softmax_model()
    results = simple_evaluate(
        CalmLM(model, Letters()),
        tasks=["local_choices", "local_text", "local_word", "local_rolling"],
        task_manager=TaskManager(include_path=folder, include_defaults=False),
        bootstrap_iters=0,
    )
    return model, results


class TestTasksFromEndToEnd:
    def test_accuracy_is_that_of_the_likelihoods(self, evaluated):
        model, results = evaluated
        right = 0
        for one in QUESTIONS:
            context = one["question"]
            space = " " if context.endswith(" ") else ""
            values = [
                likelihood_by_loop(model, context.rstrip(), space + choice)[0]
                for choice in one["choices"]
            ]
            right += values.index(max(values)) == one["answer"]
        assert results["results"]["local_choices"]["acc,none"] == right / len(QUESTIONS)

    def test_perplexities_are_those_of_the_likelihoods(self, evaluated):
        model, results = evaluated
        words, texts = [], []
        for one in QUESTIONS:
            context, answer = one["question"], one["choices"][one["answer"]]
            space = " " if context.endswith(" ") else ""
            words.append(likelihood_by_loop(model, context.rstrip(), space + answer)[0])
            texts.append((context + answer, likelihood_by_loop(model, "", context + answer)[0]))
        found = results["results"]["local_word"]["perplexity,none"]
        assert found == pytest.approx(math.exp(-sum(words) / len(words)))
        nats = -sum(value for _, value in texts)
        count = sum(len(text.encode()) for text, _ in texts)
        bits = results["results"]["local_rolling"]["bits_per_byte,none"]
        assert bits == pytest.approx(nats / count / math.log(2))

    def test_texts_are_greedy_ones(self, evaluated):
        model, results = evaluated
        samples = sorted(results["samples"]["local_text"], key=lambda one: one["doc_id"])
        assert [one["resps"][0][0] for one in samples] == [
            before(greedy_text(model, one["question"], 6), "\n") for one in QUESTIONS
        ]

    def test_the_results_describe_the_model(self, evaluated):
        _, results = evaluated
        assert results["config"]["model"] == "TokenLM" and results["config"]["chunk_size"] == 1
