"""`calmkit report` prints tables to paste, or writes a merged report."""

import sample_results as samples

from calmkit.cli import main
from calmkit.reports import merged_report, to_text


def write(folder, found):
    folder.mkdir()
    (folder / "results.json").write_text(found.to_json(), encoding="utf-8")
    return folder


def test_a_format_prints_the_tables_and_writes_nothing(run, tmp_path, capsys):
    one, two = (
        write(tmp_path / name, samples.result(samples.variant(f"{name}_1"))) for name in "ab"
    )
    for form, row in (("markdown", "| a_1 | "), ("latex", r"a\_1 & $")):
        assert main(["report", str(one), str(two), "--format", form]) == 0
        out = capsys.readouterr().out
        assert out == to_text(merged_report([one, two]), form) and row in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    # One folder alone can be printed, also where its own results would be replaced.
    assert main(["report", str(one), "--format=latex", f"--output={one}"]) == 0
    assert "b\\_1" not in capsys.readouterr().out


def test_another_format_is_refused(run, tmp_path, capsys):
    assert main(["report", str(tmp_path), "--format", "word"]) == 2
    err = capsys.readouterr().err
    assert "format" in err and "markdown" in err and "latex" in err


def test_without_one_the_report_is_written(run, tmp_path, capsys):
    one = write(tmp_path / "a", samples.result())
    assert main(["report", str(one), "--output", str(tmp_path / "out")]) == 0
    assert "heads: scores on held-out text" in capsys.readouterr().out
    assert (tmp_path / "out" / "report.html").is_file()
