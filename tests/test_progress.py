"""Progress: a bar in terminals and notebooks, a few lines in logs."""

import io
import sys
from types import SimpleNamespace

import pytest

from sklearn_stndt._progress import MOST_LINES, ProgressReport, shows_bars, tracked


class Terminal(io.StringIO):
    def isatty(self):
        return True


def shown(capsys):
    """Lines that the test has written to standard error, which is not a terminal."""
    text = capsys.readouterr().err
    assert "\r" not in text
    return text.splitlines()


def run(n_steps, per_show=1, **params):
    report = ProgressReport(n_steps, "work", "steps", **params)
    for step in range(params.get("done", 0), n_steps):
        report.update()
        if step % per_show == per_show - 1:
            report.show({"loss": f"{step}"})
    report.close()


@pytest.mark.parametrize(("n_steps", "per_show"), [(1, 1), (5, 1), (100, 1), (1001, 7), (64, 32)])
def test_a_log_gets_few_lines_from_the_first_to_the_last(capsys, n_steps, per_show):
    run(n_steps, per_show)
    lines = shown(capsys)
    assert len(lines) <= MOST_LINES
    assert lines[0].startswith(f"work: {per_show}/{n_steps} steps, loss {per_show - 1}")
    last = n_steps - n_steps % per_show
    assert f"{last}/{n_steps}" in lines[-1]
    assert ("left" in lines[0]) == (per_show < n_steps)


def test_a_terminal_gets_a_bar(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    run(20)
    assert "\r" in terminal.getvalue()
    last = terminal.getvalue().split("\r")[-1]
    assert "20/20" in last
    assert "loss=19" in last


def test_work_that_was_done_before_is_not_reported_again(capsys):
    run(100, done=50)
    first = shown(capsys)[0]
    assert 50 < int(first.removeprefix("work: ").partition("/")[0]) <= 72
    assert "left" in first


def test_after_going_back_only_new_steps_are_reported(capsys):
    report = ProgressReport(70, "work", "steps")
    report.move(40)
    report.update()
    report.show({})
    report.move(10)
    for _ in range(30):
        report.update()
        report.show({})
    assert [line.partition("/")[0] for line in shown(capsys)] == ["work: 41"]


def test_time_left_is_of_steps_since_the_start(capsys, monkeypatch):
    clock = iter([100.0, 130.0])
    time = SimpleNamespace(monotonic=lambda: next(clock))
    monkeypatch.setattr("sklearn_stndt._progress.time", time)
    report = ProgressReport(100, "work", "steps", done=40)
    report.update(20)
    report.show({})
    assert shown(capsys) == ["work: 60/100 steps, 01:00 left"]


def test_without_standard_error_nothing_is_shown(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    run(20)


def test_a_notebook_gets_a_bar(monkeypatch):
    shell = SimpleNamespace(kernel=object())
    for get_ipython, expected in ((lambda: None, False), (lambda: shell, True)):
        monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=get_ipython))
        assert shows_bars(io.StringIO()) is expected


def test_tracked_items_are_counted_on_demand(capsys):
    assert list(tracked({"a": 1, "b": 2}, "letters", "letters", show=False)) == ["a", "b"]
    assert not shown(capsys)
    assert list(tracked(["a", "b"], "letters", "items", show=True)) == ["a", "b"]
    assert shown(capsys)[-1] == "letters: 2/2 items"
