"""Tests for content: the key of a text is that of its words."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calmkit.text import content as content_module
from calmkit.text import content_key

spaces = st.sampled_from([" ", "\n", "\t", "\r\n", "\u2028", "\x1c", "\u3000", "  "])
words = st.sampled_from(["a", "word", "日本", "\u200b"])
texts = st.one_of(st.text(), st.lists(st.one_of(spaces, words)).map("".join))


@given(text=texts, part=st.integers(1, 9))
def test_key_is_that_of_the_docstring_however_long_the_text(text, part):
    want = hashlib.blake2b(" ".join(text.split()).encode(), digest_size=16).digest()
    assert content_key(text) == want
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(content_module, "_PART", part)
        assert content_key(text) == want
