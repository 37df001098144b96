"""The helper: a real child each time, what it says, how it dies, and what is left: nothing."""

from __future__ import annotations

import errno
import logging
import os
import re
import resource
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, Callable

import pytest

from libxlsr.errors import Aborted, LibxlsrError, TargetError
from libxlsr.events import Child, Context
from libxlsr.helper.parent import Helper
from libxlsr.testing.faulty_worker import ERRORS
from libxlsr.testing.leaks import children
from libxlsr.testing.stepping import run_until

from .unkillable import unkillable

WORKER = "libxlsr.testing.faulty_worker"


class Told:
    """Everything that one helper told its parent."""

    def __init__(self) -> None:
        self.done: list[tuple[dict[str, Any] | None, LibxlsrError | None]] = []
        self.log: list[tuple[int, str]] = []
        self.progress: list[Mapping[str, int]] = []

    @property
    def error(self) -> LibxlsrError:
        ((result, error),) = self.done
        assert result is None
        assert error is not None
        return error


def started(
    ctx: Context,
    told: Told,
    args: dict[str, Any],
    *,
    worker: str = WORKER,
    fds: Mapping[str, int] | None = None,
    **options: Any,
) -> Helper:
    helper = Helper(
        ctx,
        worker,
        on_done=lambda result, error: told.done.append((result, error)),
        on_log=lambda level, text: told.log.append((level, text)),
        on_progress=told.progress.append,
        **options,
    )
    helper.start(args, fds)
    return helper


def run(ctx: Context, args: dict[str, Any], **options: Any) -> Told:
    told = Told()
    helper = started(ctx, told, args, **options)
    assert told.done == []
    run_until(ctx, lambda: bool(told.done))
    assert helper.pid is None
    return told


def test_a_default_timeout_of_sockets_is_not_the_childs(
    ctx: Context, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    spawn, blocking = Child.spawn, []

    def recorded(*args: Any, **options: Any) -> Child:
        blocking.append(os.get_blocking(options["pass_fds"][0]))
        return spawn(*args, **options)

    monkeypatch.setattr(Child, "spawn", recorded)
    socket.setdefaulttimeout(30)
    request.addfinalizer(lambda: socket.setdefaulttimeout(None))
    assert run(ctx, {"a": 1}).done == [({"args": {"a": 1}}, None)]
    assert blocking == [True]


def test_the_result(ctx: Context) -> None:
    told = run(ctx, {"a": [1, {"b": None}], "c": "\N{SNOWMAN}"})
    assert told.done == [({"args": {"a": [1, {"b": None}], "c": "\N{SNOWMAN}"}}, None)]
    assert told.progress == [{"bytes": 1}]


def test_log_lines_in_their_order(ctx: Context) -> None:
    told = run(ctx, {"log": ["one", "two", "x" * 10_000]})
    assert told.log == [(logging.INFO, "one"), (logging.INFO, "two"), (logging.INFO, "x" * 4096)]


def test_what_the_child_started_is_not_waited_for(ctx: Context) -> None:
    error = run(ctx, {"fault": "leave a child"}).error
    said = re.search(r"left (\d+)", str(error))
    assert said is not None, str(error)
    os.kill(int(said[1]), signal.SIGKILL)


def test_a_call_and_its_reply(ctx: Context) -> None:
    def answer(name: str, args: dict[str, Any], reply: Callable[[dict[str, Any]], None]) -> None:
        assert name == "question"
        ctx.call_soon(reply, {"twice": args["number"] * 2})

    told = run(ctx, {"call": {"number": 21}}, on_call=answer)
    assert told.done == [({"answer": {"twice": 42}}, None)]


def test_a_call_that_nobody_answers(ctx: Context) -> None:
    error = run(ctx, {"call": {}}).error
    assert "asks for 'question' in vain" in str(error)


def test_only_the_fds_that_it_was_given(ctx: Context) -> None:
    secret_read, secret_write = os.pipe()
    given_read, given_write = os.pipe()
    os.set_inheritable(secret_read, True)
    try:
        told = Told()
        started(ctx, told, {"fault": "wait"}, fds={"pipe": given_read})
        run_until(ctx, lambda: bool(told.progress))
        (child,) = children()
        fds = {os.readlink(f"/proc/{child}/fd/{fd}") for fd in os.listdir(f"/proc/{child}/fd")}
        pipes = {fd: os.readlink(f"/proc/self/fd/{fd}") for fd in (secret_read, given_read)}
        os.kill(child, signal.SIGKILL)
        run_until(ctx, lambda: bool(told.done))
    finally:
        for fd in (secret_read, secret_write, given_read, given_write):
            os.close(fd)
    assert pipes[given_read] in fds
    assert pipes[secret_read] not in fds


def test_it_is_there_before_its_work_is(ctx: Context) -> None:
    told = Told()
    helper = Helper(
        ctx,
        WORKER,
        on_done=lambda result, error: told.done.append((result, error)),
        on_progress=told.progress.append,
    )
    helper.spawn()
    assert helper.pid is not None
    with open("/proc/self/stat") as file:
        helper.begin({"a": 1}, {"fd": file.fileno()})
    run_until(ctx, lambda: bool(told.done))
    ((result, error),) = told.done
    assert error is None
    assert result is not None
    assert result["args"]["a"] == 1
    assert result["args"]["fd"] > 2


def test_one_that_dies_before_it_gets_work(ctx: Context) -> None:
    told = Told()
    helper = Helper(ctx, WORKER, on_done=lambda result, error: told.done.append((result, error)))
    helper.spawn()
    assert helper.pid is not None
    os.kill(helper.pid, signal.SIGKILL)
    run_until(ctx, lambda: bool(told.done))
    helper.begin({}, {})
    assert "killed by SIGKILL" in str(told.error)


def test_one_that_is_stopped_before_it_gets_work(ctx: Context) -> None:
    told = Told()
    helper = Helper(ctx, WORKER, on_done=lambda result, error: told.done.append((result, error)))
    helper.spawn()
    helper.abort(Aborted("not needed"))
    run_until(ctx, lambda: bool(told.done))
    assert isinstance(told.error, Aborted)


def test_an_fd_that_is_none(ctx: Context) -> None:
    error = run(ctx, {}, fds={"fd": 999_999}).error
    assert isinstance(error, TargetError)
    assert error.errno == errno.EBADF


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_of_the_worker_arrives_as_it_was(ctx: Context, name: str) -> None:
    error, sent = run(ctx, {"fault": name}).error, ERRORS[name]
    assert type(error) is type(sent)
    assert str(error) == str(sent)
    assert vars(error) == vars(sent)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("SIGKILL", "the helper was killed by SIGKILL before it reported a result"),
        ("SIGSEGV", "the helper was killed by SIGSEGV before it reported a result"),
        ("SIGABRT", "(last log line: guest.c:42: xc_restore: Assertion `pfn <= max' failed.)"),
        ("exit 0", "the helper exited with 0 before it reported a result"),
        ("exit 3", "the helper exited with 3 before it reported a result"),
        ("OSError", "the helper's work failed: No space left on device"),
        ("MemoryError", "the helper ran out of memory"),
        ("ZeroDivisionError", "internal error in the helper: ZeroDivisionError"),
    ],
)
def test_a_worker_that_dies(ctx: Context, fault: str, words: str) -> None:
    error = run(ctx, {"fault": fault}).error
    assert isinstance(error, TargetError)
    assert words in str(error)
    assert "\n" not in str(error)


def test_the_last_log_line_is_named(ctx: Context) -> None:
    error = run(ctx, {"log": ["Failed to allocate"], "fault": "SIGKILL"}).error
    assert "(last log line: Failed to allocate)" in str(error)


def test_only_the_last_line_of_a_log_entry_is_named(ctx: Context) -> None:
    told = run(ctx, {"log": ["one\n\x1b[31mtwo\n"], "fault": "SIGKILL"})
    assert "(last log line: \\x1b[31mtwo)" in str(told.error)
    assert told.log == [(logging.INFO, "one\n\x1b[31mtwo\n")]


def test_a_traceback_goes_to_the_log_and_not_into_the_message(ctx: Context) -> None:
    told = run(ctx, {"fault": "ZeroDivisionError"})
    assert "Traceback" not in told.error.message
    assert "Traceback" in told.log[-1][1]


def test_success_counts_only_with_exit_code_0(ctx: Context) -> None:
    error = run(ctx, {"result first": True, "fault": "SIGSEGV"}).error
    assert "reported success, but then it was killed by SIGSEGV" in str(error)


def test_standard_error_of_many_lines_keeps_the_last_one(ctx: Context) -> None:
    told = run(ctx, {"stderr": "".join(f"line {n}\n" for n in range(5000)), "fault": "exit 3"})
    assert "(last log line: line 4999)" in str(told.error)


def test_standard_error_without_an_end_of_line(ctx: Context) -> None:
    assert "(last log line: xxxx" in str(
        run(ctx, {"stderr": "x" * 20_000, "fault": "exit 3"}).error
    )


@pytest.mark.parametrize(
    "said",
    [
        "rubbish",
        "[]",
        "{}",
        '{"kind": "log"}',
        '{"kind": "log", "level": "high", "text": ""}',
        '{"kind": "start", "worker": "w", "args": {}}',
        '{"kind": "progress", "counters": {"bytes": "many"}}',
        '{"kind": "progress", "counters": {"bytes": true}}',
        '{"kind": "error", "error": {}}',
        '{"kind": "error", "error": {"class": "StreamError", "message": 1}}',
        '{"kind": "error", "error": {"class": "StreamError", "message": "m", "offset": "0"}}',
        '{"kind": "error", "error": {"class": "SystemExit", "message": "m"}}',
        "[" * 50_000,
    ],
)
def test_a_child_that_talks_rubbish_is_killed(ctx: Context, said: str) -> None:
    error = run(ctx, {"say": said, "fault": "wait"}).error
    assert isinstance(error, TargetError)
    assert "the helper said something" in str(error)


def test_a_worker_that_does_not_exist(ctx: Context) -> None:
    error = run(ctx, {}, worker="libxlsr.no_such_worker").error
    assert "no_such_worker" in str(error)


def test_one_that_ends_with_its_work_unread_is_heard_out(ctx: Context) -> None:
    told = Told()
    helper = Helper(
        ctx,
        "libxlsr.no_such_worker",
        on_done=lambda result, error: told.done.append((result, error)),
    )
    helper.start({})
    assert helper.pid is not None
    os.waitid(os.P_PID, helper.pid, os.WEXITED | os.WNOWAIT)
    run_until(ctx, lambda: bool(told.done))
    assert "no_such_worker" in str(told.error)


def test_abort(ctx: Context) -> None:
    told = Told()
    helper = started(ctx, told, {"fault": "wait"})
    run_until(ctx, lambda: bool(told.progress))
    reason = Aborted("enough")
    helper.abort(reason)
    helper.abort(Aborted("twice"))
    assert told.done == []
    run_until(ctx, lambda: bool(told.done))
    assert told.error is reason
    helper.abort(Aborted("too late"))


def test_abort_right_after_the_start(ctx: Context) -> None:
    told = Told()
    reason = Aborted()
    started(ctx, told, {"fault": "wait"}).abort(reason)
    run_until(ctx, lambda: bool(told.done))
    assert told.error is reason


def test_a_child_that_ignores_sigterm_is_killed(ctx: Context) -> None:
    told = Told()
    helper = started(ctx, told, {"fault": "ignore SIGTERM"}, grace=0.0)
    run_until(ctx, lambda: bool(told.progress))
    reason = Aborted()
    helper.abort(reason)
    run_until(ctx, lambda: bool(told.done))
    assert told.error is reason


@pytest.mark.parametrize("say", ["", "rubbish"])
def test_a_child_that_can_not_be_killed_is_given_up_and_reaped_later(
    ctx: Context, monkeypatch: pytest.MonkeyPatch, say: str
) -> None:
    told = Told()
    with unkillable(monkeypatch):
        helper = started(ctx, told, {"fault": "wait", "say": say} if say else {"fault": "wait"})
        pid = helper.pid
        run_until(ctx, lambda: bool(told.progress))
        if not say:
            helper.abort(Aborted("enough"))
        run_until(ctx, lambda: bool(told.done))
    assert ("enough" if not say else "the helper said something") in str(told.error)
    assert told.error.later == [helper.left_behind]
    assert f"process {pid} does not end" in str(helper.left_behind)
    assert helper.pid is None
    run_until(ctx, lambda: not ctx.registered())
    assert len(told.done) == 1


def test_no_fds_are_left_for_a_helper(ctx: Context) -> None:
    """Each of the steps of a start may be the one that fails; none leaves anything."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = os.dup(0)
    os.close(spare)
    failures = 0
    for more in range(30):
        resource.setrlimit(resource.RLIMIT_NOFILE, (spare + more, hard))
        told = Told()
        try:
            started(ctx, told, {})
        except TargetError as error:
            failures += error.errno == errno.EMFILE
            continue
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        run_until(ctx, lambda told=told: bool(told.done))  # type: ignore[misc]
        break
    assert failures >= 4


def test_the_child_dies_with_its_parent() -> None:
    program = f"""
import sys
from libxlsr.events import Context, run
from libxlsr.helper.parent import Helper
ctx, told = Context(), []
helper = Helper(ctx, {WORKER!r}, on_done=print, on_progress=told.append)
helper.start({{"fault": "ignore SIGTERM"}})
run(ctx, lambda: bool(told))
print(helper.pid, flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        pidfd = os.pidfd_open(int(process.stdout.readline()))
        try:
            process.kill()
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            assert poll.poll(60_000), "the helper outlives its parent"
        finally:
            os.close(pidfd)
