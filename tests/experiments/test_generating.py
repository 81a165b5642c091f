"""Reading prompts."""

import json

import pytest

from calmkit.experiments.generating import read_prompts


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_only_line_ends_divide_prompts(mark, end, tmp_path):
    """What else ends a line for `str.splitlines` is text; a byte order mark is none."""
    prompts = ["One\u2028two", "three\x85four\x0cfive", "six\x1cseven\u2029\x0b", "eight"]
    plain, lines = tmp_path / "prompts.txt", tmp_path / "prompts.jsonl"
    plain.write_bytes((mark + end.join([*prompts, "", ""])).encode())
    objects = [json.dumps({"prompt": prompt}, ensure_ascii=False) for prompt in prompts]
    lines.write_bytes((mark + end.join([*objects, "", ""])).encode())
    assert read_prompts(plain) == read_prompts(lines) == prompts
