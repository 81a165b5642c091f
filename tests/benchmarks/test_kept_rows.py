"""Kept rows: measured once, read again, of the same setting only."""

import pytest


@pytest.fixture
def kept_rows(load):
    return load("kept_rows").KeptRows


def refuse():
    raise AssertionError("must not be measured again")


def test_a_stopped_run_goes_on(kept_rows, tmp_path):
    path = tmp_path / "kept.json"
    first = kept_rows(path, {"seed": 0, "sizes": (1, 2)})
    assert first.get("a", lambda: [{"x": 0.1}]) == [{"x": 0.1}]
    assert first.get("a", refuse) == [{"x": 0.1}]
    second = kept_rows(path, {"seed": 0, "sizes": (1, 2)})
    assert second.get("a", refuse) == [{"x": 0.1}]
    second.get("b", list)
    third = kept_rows(path, {"seed": 0, "sizes": (1, 2)})
    assert (third.get("a", refuse), third.get("b", refuse)) == ([{"x": 0.1}], [])
    assert [file.name for file in tmp_path.iterdir()] == ["kept.json"]


def test_another_setting_is_refused(kept_rows, tmp_path):
    kept_rows(tmp_path / "kept.json", {"seed": 0}).get("a", list)
    with pytest.raises(ValueError, match=r"kept\.json has others\. Remove it"):
        kept_rows(tmp_path / "kept.json", {"seed": 1})


def test_without_a_file_nothing_is_kept(kept_rows, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one = kept_rows(None, {})
    assert one.get("a", lambda: [{}]) == [{}] == one.get("a", refuse)
    assert not list(tmp_path.iterdir())
