import io
import json

import pytest

from calmkit import cli


def test_generate_goes_on_from_the_prompt_and_repeats_itself(run, trained, capsys):
    options = ["generate", "--checkpoint", str(trained), "--prompt", "The value",
               "--max_new_tokens", "9", "--samples", "2"]  # fmt: skip
    texts = []
    for seed in ("1", "1", "2"):
        assert cli.main([*options, "--seed", seed]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != texts[2]
    assert texts[0].startswith("The value") and texts[0].count("The value") == 2


def test_one_text_appears_as_it_is_made(run, trained, capsys, monkeypatch):
    """The pieces together are the text of the same options with JSON."""
    options = ["generate", "--checkpoint", str(trained), "--prompt", "The value"]
    options += ["--max_new_tokens", "9", "--temperature", "0.5", "--candidates", "8"]
    pieces = []
    monkeypatch.setattr(
        "builtins.print",
        lambda *text, end="\n", flush=False, file=None: file or pieces.append((*text, end)),
    )
    assert cli.main(options) == 0
    monkeypatch.undo()
    assert len(pieces) > 3
    assert cli.main([*options, "--json"]) == 0
    line = json.loads(capsys.readouterr().out)
    assert "".join("".join(piece) for piece in pieces) == f"The value{line['text']}\n"
    assert line["prompt"] == "The value" and line["finish_reason"] in ("stop", "length")
    assert line["draws"] == 8 * line["chunks"] and line["unsettled"] <= line["chunks"]


def test_a_prompt_comes_from_standard_input(run, trained, capsys, monkeypatch):
    options = ["generate", "--checkpoint", str(trained), "--max_new_tokens", "9"]
    assert cli.main([*options, "--prompt", "The\nvalue"]) == 0
    given = capsys.readouterr().out
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"The\nvalue\n")))
    assert cli.main([*options, "--prompt", "-"]) == 0
    assert capsys.readouterr().out == given and given.startswith("The\nvalue")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xff")))
    assert cli.main([*options, "--prompt", "-"]) == 2
    assert "prompt must be UTF-8 text; standard input is not." in capsys.readouterr().err


@pytest.mark.usefixtures("hub")
def test_a_model_of_the_hub_writes_the_same(run, trained, capsys):
    texts = []
    for place in (str(trained), "owner/name"):
        options = ["generate", "--checkpoint", place, "--prompt", "The", "--max_new_tokens", "9"]
        assert cli.main(options) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]


def test_the_end_of_a_text_is_told_on_stderr(run, trained, capsys):
    options = ["generate", "--checkpoint", str(trained), "--prompt", "The", "--seed", "1"]
    assert cli.main([*options, "--max_new_tokens", "9"]) == 0
    told = capsys.readouterr()
    assert told.err == "calmkit generate: the text stopped at max_new_tokens = 9.\n"
    # Two draws of an untrained model hardly ever agree.
    few = ["--temperature", "0.5", "--candidates", "2", "--samples", "3", "--json"]
    assert cli.main([*options, *few, "--max_new_tokens", "4"]) == 0
    told = capsys.readouterr()
    lines = [json.loads(line) for line in told.out.splitlines()]
    unsettled, chunks = (sum(line[key] for line in lines) for key in ("unsettled", "chunks"))
    ended = sum(line["finish_reason"] == "stop" for line in lines)
    assert unsettled > 0
    assert told.err == (
        f"calmkit generate: {ended} of 3 texts stopped at their end token, the rest at "
        f"max_new_tokens = 4; {unsettled} of {chunks} chunks had too few agreeing draws for "
        "temperature 0.5 and are more diverse; raise --candidates.\n"
    )


def test_prompts_come_from_a_file(run, trained, tmp_path, capsys):
    (tmp_path / "few.txt").write_text("One\n\nTwo\n")
    (tmp_path / "few.jsonl").write_text('{"prompt": "One"}\n\n{"prompt": "Two", "id": 7}\n')
    texts = []
    for name in ("few.txt", "few.jsonl"):
        options = ["generate", "--checkpoint", str(trained), "--prompts", name, "--json"]
        options += ["--max_new_tokens", "4", "--exact", "--temperature", "0.9"]
        assert cli.main(options) == 0
        texts.append([json.loads(line) for line in capsys.readouterr().out.splitlines()])
    assert texts[0] == texts[1]
    assert [line["prompt"] for line in texts[0]] == ["One", "Two"]
    assert all(line["draws"] >= line["chunks"] for line in texts[0])


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ([], "calmkit generate: missing: checkpoint."),
        (["--checkpoint", "nowhere"], "checkpoint nowhere must be a folder"),
        (["--chekpoint", "x"], "did you mean: checkpoint"),
        (["--checkpoint", "model", "--trust", "mine.py"], "got 'mine.py'. Write --trust mine."),
        (
            ["--checkpoint", "model", "--trust", "my/own.py"],
            "got 'my/own.py'. Write --trust my.own.",
        ),
        (
            ["--checkpoint", "model", "--trust", "a-b"],
            "modules as an import does, such as my_heads;",
        ),
        (["--checkpoint", "model", "--temperature", "2"], "temperature must be in"),
        (["--checkpoint", "model", "--candidates", "0"], "candidates must be"),
        (["--checkpoint", "model", "--prompts", "no.txt"], "prompts must be readable; 'no.txt'"),
        (
            ["--checkpoint", "model", "--prompts", "a.txt", "--prompt", "b"],
            "exclude each other",
        ),
        (["--checkpoint", "model", "--prompts", "bad.jsonl"], "bad.jsonl:2 has ['promt']"),
        (["--checkpoint", "model", "--prompts", "empty.txt"], "has none"),
        (["--checkpoint", "model", "--max_new_tokens", "0"], "max_new_tokens"),
        (["--checkpoint", "model", "--seed", "-1"], "seed must be at least 0; got -1"),
        (
            ["--checkpoint", "model", "--prompt", "ab\udc80"],
            "prompt must be valid UTF-8 text; got 'ab\\udc80' (command line)",
        ),
    ],
)
def test_mistakes(run, trained, tmp_path, capsys, options, text):
    (tmp_path / "bad.jsonl").write_text('{"prompt": "One"}\n{"promt": "Two"}\n')
    (tmp_path / "empty.txt").write_text("\n")
    assert cli.main(["generate", *options]) == 2
    err = capsys.readouterr().err
    assert text in err and "Traceback" not in err
