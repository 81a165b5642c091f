import io

from rich.console import Console

from calmkit.cli import display
from calmkit.cli.display import Display
from calmkit.training import Progress, Speed


def run(console, steps=3, loss=2.5):
    with Display(console) as display:
        display.note("text [prepared]")
        show = display.track("energy head")
        for step in range(1, steps + 1):
            show(Progress(step=step, steps=steps, loss=loss, seconds_per_step=30.0))
    return console.file.getvalue()


def test_plain_lines_where_there_is_no_terminal(monkeypatch):
    monkeypatch.setattr(display, "_SECONDS_BETWEEN_LINES", 0.0)
    text = run(Console(file=io.StringIO(), width=100))
    assert text.splitlines() == [
        "text [prepared]",
        "energy head ...",
        "energy head: 1/3, loss 2.5, 1:00 left",
        "energy head: 2/3, loss 2.5, 0:30 left",
        "energy head: 3/3, loss 2.5, done in 1:30",
    ]


def test_few_lines_for_fast_steps():
    text = run(Console(file=io.StringIO(), width=100), steps=500, loss=None)
    assert text.splitlines()[1:] == ["energy head ...", "energy head: 500/500, done in 4:10:00"]


def test_a_bar_on_a_terminal():
    text = run(Console(file=io.StringIO(), width=100, force_terminal=True))
    assert "energy head" in text and "3/3" in text and "loss 2.5, done in 1:30" in text
    assert "energy head ..." not in text


def test_a_stage_without_a_step_leaves_no_bar():
    """Such as the training of an autoencoder that is stored, or one that was interrupted."""
    console = Console(file=io.StringIO(), width=100, force_terminal=True)
    with Display(console) as display:
        display.track("stored")
        show = display.track("model")
        assert [task.description for task in display._bars.tasks] == ["model"]
        show(Progress(3, 3, 2.5, 30.0))
        display.track("stored, too")
    assert [task.description for task in display._bars.tasks] == ["model"]
    last = console.file.getvalue().rpartition("\x1b[2K")[2]
    assert "model" in last and "0/?" not in last and "stored" not in last


def test_the_speed_is_shown_where_it_is_known():
    console = Console(file=io.StringIO(), width=100)
    with Display(console) as display:
        show = display.track("model")
        show(Progress(3, 3, 2.5, 30.0, Speed(12345.6, 0.417)))
        show(Progress(3, 3, 2.5, 30.0, Speed(9.8, None)))
    assert console.file.getvalue().splitlines()[1:] == [
        "model: 3/3, loss 2.5, 12,346 tokens/s (42% of peak), done in 1:30",
        "model: 3/3, loss 2.5, 10 tokens/s, done in 1:30",
    ]
