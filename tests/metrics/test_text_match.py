"""chrF and BLEU against plain loops, torchmetrics and, where it is installed, sacrebleu."""

import math
import random

import pytest
import torch
from ngram_loops import loop_bleu, loop_chrf

from calmkit.metrics import bleu, bleu_counts, chrf, chrf_counts
from calmkit.metrics.bleu import split_words

TEXTS = [
    "The cat sat on the mat, and the dog (a small one) slept.",
    "A cat is on the mat; the dog slept.",
    'It cost $1,234.50 in 1999-2000, he said: "no".',
    "It costs 1,234.5 in 1999-2001, she said. No, no...",
    "state-of-the-art &amp; old-\nfashioned, don't &lt;b&gt;",
    "Über naïve façades, 3.5% of 10,000.",
]
PAIRS = [(TEXTS[i], TEXTS[i ^ 1]) for i in range(len(TEXTS))]


def total(counts, pairs):
    return torch.tensor([counts(*pair) for pair in pairs], dtype=torch.float64).sum(dim=0)


def random_pairs(seed, *, words=9, alphabet="ab c"):
    """Texts of few letters and words, which share some; words are whitespace apart."""
    draw = random.Random(seed)
    return [
        tuple("".join(draw.choice(alphabet) for _ in range(draw.randint(0, words))) for _ in "ab")
        for _ in range(draw.randint(1, 4))
    ]


@pytest.mark.parametrize("seed", range(40))
def test_are_their_formulas(seed):
    pairs = random_pairs(seed, words=4 + seed)
    assert float(chrf(total(chrf_counts, pairs))) == pytest.approx(loop_chrf(pairs), abs=1e-12)
    assert float(bleu(total(bleu_counts, pairs))) == pytest.approx(loop_bleu(pairs), abs=1e-12)


@pytest.mark.parametrize("pairs", [PAIRS, *([pair] for pair in PAIRS)])
def test_agree_with_torchmetrics(pairs):
    text = pytest.importorskip("torchmetrics.text")
    pairs = [tuple(x.replace("\n", " ") for x in pair) for pair in pairs]  # which it counts
    hypotheses, references = [a for a, _ in pairs], [[b] for _, b in pairs]
    metric = text.CHRFScore(n_word_order=0)
    metric.update(hypotheses, references)
    # The counts are the same. It averages F-scores of the orders, where chrF is one of averages.
    names = [f"total_{kind}_char_{n}_grams" for kind in ("matching", "preds", "target")
             for n in range(1, 7)]  # fmt: skip
    want = [float(metric.metric_state[name]) for name in names]
    assert total(chrf_counts, pairs).tolist() == want
    counts = total(bleu_counts, pairs)
    if (counts[:4] > 0).all():  # it smooths in another way
        want = text.SacreBLEUScore()(hypotheses, references)
        assert float(bleu(counts)) == pytest.approx(float(want), rel=1e-5)


@pytest.mark.parametrize("pairs", [PAIRS, *([pair] for pair in PAIRS), random_pairs(7, words=30)])
def test_agree_with_sacrebleu(pairs):
    sacrebleu = pytest.importorskip("sacrebleu")
    hypotheses, references = [a for a, _ in pairs], [[b for _, b in pairs]]
    want = sacrebleu.corpus_chrf(hypotheses, references).score
    assert 100 * float(chrf(total(chrf_counts, pairs))) == pytest.approx(want, abs=1e-9)
    want = sacrebleu.corpus_bleu(hypotheses, references).score
    assert 100 * float(bleu(total(bleu_counts, pairs))) == pytest.approx(want, abs=1e-9)


@pytest.mark.parametrize(("counts", "score"), [(chrf_counts, chrf), (bleu_counts, bleu)])
class TestBounds:
    def test_a_text_is_like_itself(self, counts, score):
        assert float(score(total(counts, [(x, x) for x in TEXTS]))) == pytest.approx(1.0)

    def test_nothing_shared_and_nothing_written(self, counts, score):
        for pair in (("abc def ghi jkl", "zz yy xx ww"), ("", "a text"), ("", "")):
            assert float(score(total(counts, [pair]))) == 0.0

    def test_batches_and_dtypes(self, counts, score):
        table = torch.tensor([counts(*pair) for pair in PAIRS], dtype=torch.float32)
        each = score(table.view(2, 3, -1))
        assert each.shape == (2, 3) and each.dtype == torch.float32
        torch.testing.assert_close(each.flatten(), torch.stack([score(row) for row in table]))


def test_a_short_text_is_punished():
    words = "one two three four five six seven eight".split()
    counts = total(bleu_counts, [(" ".join(words[:4]), " ".join(words))])
    assert float(bleu(counts)) == pytest.approx(math.exp(1 - 8 / 4))


def test_words_and_marks():
    assert split_words('He said: "1,234.5, no-one\'s 7-up".') == [
        "He", "said", ":", '"', "1,234.5", ",", "no-one's", "7", "-", "up", '"', "."
    ]  # fmt: skip
    assert split_words("a &lt; b &amp; hy-\nphen\nline") == ["a", "<", "b", "&", "hyphen", "line"]
