"""``lungfish check``: every rule finds what it is for, and nothing else."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest
from click.testing import CliRunner

from lungfish.orchestrations.check_rules import ADVICE, Rule
from lungfish.orchestrations.checking import check_file, check_source
from lungfish.runtime.cli.main import main
from lungfish.runtime.errors import UsageError

ROOT = Path(__file__).parents[3]

HEAD = """\
import asyncio, datetime, os, random, requests, socket, sys, threading, time, uuid
import datetime as dt
from datetime import datetime as When
from pathlib import Path
from time import sleep as nap
import lungfish
app = lungfish.App("x")
SEEN = []
KNOWN = {"a": 1}
@app.activity
def act(): time.sleep(1); SEEN.append(1)
async def step(ctx): pass
@app.orchestration
async def f(ctx, names):
"""


def rules(code: str, head: str = HEAD) -> list[str]:
    source = head + textwrap.indent(textwrap.dedent(code), "    ")
    return [finding.rule.value for finding in check_source(source)]


@pytest.mark.parametrize(
    ("code", "rule"),
    [
        ("time.time()", "wall-clock"),
        ("When.now()", "wall-clock"),
        ("dt.date.today()", "wall-clock"),
        ("datetime.datetime.now(datetime.timezone.utc)", "wall-clock"),
        ("x = [time.monotonic]", "wall-clock"),
        ("time.strftime('%Y')", "wall-clock"),
        ("random.choice(names)", "random"),
        ("random.Random()", "random"),
        ("uuid.uuid4()", "random"),
        ("os.urandom(8)", "random"),
        ("nap(1)", "blocking-sleep"),
        ("open('x')", "io"),
        ("with open('x') as file: pass", "io"),
        ("requests.get('u')", "io"),
        ("socket.create_connection(('h', 1))", "io"),
        ("import subprocess; subprocess.run('ls')", "io"),
        ("Path('x').read_text()", "io"),
        ("import urllib.request; urllib.request.urlopen('u')", "io"),
        ("await asyncio.to_thread(len, names)", "threads"),
        ("threading.Thread(target=print).start()", "threads"),
        ("await asyncio.get_running_loop().run_in_executor(None, print)", "threads"),
        ("from concurrent.futures import ThreadPoolExecutor as Pool; Pool()", "threads"),
        ("os.environ['HOME']", "environment"),
        ("os.getenv('HOME')", "environment"),
        ("sys.argv[1]", "environment"),
        ("global COUNT; COUNT = 1", "global-state"),
        ("KNOWN['b'] = 2", "global-state"),
        ("del KNOWN['a']", "global-state"),
        ("return len(SEEN)", "global-state"),
        ("for name in set(names): pass", "set-order"),
        ("found = {n.lower() for n in names}\nreturn list(found)", "set-order"),
        ("', '.join({'a', 'b'} - set(names))", "set-order"),
        ("a = set()\na |= set(names)\nb = {*names}\nreturn [x for x in b]", "set-order"),
        ("return {n: 1 for n in frozenset(names)}", "set-order"),
        ("hash(names[0])", "address"),
        ("id(names)", "address"),
        ("ctx.call_activity(act)", "unawaited"),
        ("ctx.sleep(1)", "unawaited"),
        ("ctx.entity('Counter', 'k').call('add', 1)", "unawaited"),
        ("asyncio.sleep(1)", "unawaited"),
        ("step(ctx)", "unawaited"),
        ("try: pass\nexcept: pass", "swallows-cancel"),
        ("try: pass\nexcept (ValueError, BaseException): pass", "swallows-cancel"),
        ("act()", "direct-activity"),
    ],
)
def test_it_finds(code: str, rule: str) -> None:
    assert rules(code) == [rule]


@pytest.mark.parametrize(
    "code",
    [
        "ctx.now(); ctx.uuid4(); ctx.random.choice(names); await ctx.sleep(1)",
        "await asyncio.sleep(1); await asyncio.gather(step(ctx), step(ctx))",
        "_ = ctx.call_activity(act)",
        "ctx.entity('Counter', 'k').signal('add', 1)",
        "time = names[0]; time.time()",
        "def now(): return ctx.now()\nnow()",
        "random.Random(7).random(); uuid.UUID(int=1); time.strftime('%Y', time.gmtime(0))",
        "try: pass\nexcept BaseException:\n    raise",
        "try: pass\nexcept asyncio.CancelledError: pass",
        "try: pass\nexcept (requests.HTTPError, socket.timeout, requests.ConnectionError): pass",
        "return sorted(set(names)), len({*names}), max(n for n in set(names)), set(x for x in {*names})",
        "for n in {1, 2, 3}: pass",
        "tasks = {ctx.call_activity(act) for n in names}\nfor task in tasks: await task",
        "found = set(names)\nfound = sorted(found)\nreturn list(found)",
        "done, pending = await asyncio.wait([ctx.call_activity(act)])\nfor task in done: pass",
        "SEEN: list[int] = []\nSEEN.append(1)",
        "return KNOWN['a']",
        "lock: threading.Lock | None = None",
        "os.path.join('a', 'b'); dt.timedelta(seconds=1); When(2020, 1, 1)",
        "time.sleep(1)  # lungfish: ignore[blocking-sleep]",
        "time.sleep(1)  # lungfish: ignore",
    ],
)
def test_it_leaves_alone(code: str) -> None:
    assert rules(code) == []


def test_an_ignore_of_another_rule_ignores_nothing() -> None:
    assert rules("time.sleep(1)  # lungfish: ignore[io, wall-clock]") == ["blocking-sleep"]


def test_a_finding_has_its_exact_place_and_words() -> None:
    (found,) = check_source(HEAD + "    x = 1; y = uuid.uuid4()\n", "shop.py")
    assert str(found) == (
        "shop.py:15:16: random: uuid.uuid4 in orchestration 'f': "
        "replay would draw another value; use ctx.random or ctx.uuid4()"
    )


def test_it_follows_calls_into_functions_of_the_module() -> None:
    code = """\
    import time
    def inner(): return time.time()
    def outer(): return inner()
    def unused(): return time.time()
    class Thing:
        @app.orchestration(name="other")
        def run(context): yield context.sleep(outer())
    """
    (found,) = check_source(textwrap.dedent(code))
    assert (found.line, found.orchestration) == (2, "run")


def test_a_name_of_the_module_is_not_the_builtin() -> None:
    code = """\
    def open(name): return name
    def hash(name): return name
    @app.orchestration
    async def f(ctx): return open(hash("x"))
    """
    assert check_source(textwrap.dedent(code)) == []


def test_what_is_no_orchestration_may_do_anything() -> None:
    assert check_source("import time\nasync def f(ctx): time.sleep(1)\n@app.entity\nclass E: ...\n") == []


def test_every_rule_has_its_advice() -> None:
    assert set(ADVICE) == set(Rule)


@pytest.mark.parametrize("folder", ["examples", "lungfish", "benchmarks"])
def test_our_own_orchestrations_are_clean(folder: str) -> None:
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    assert [str(finding) for file in files for finding in check_file(file)] == []


def test_what_is_not_python_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="broken.py is not Python"):
        check_source("def f(:", "broken.py")
    (tmp_path / "latin.py").write_bytes(b"x = '\xe9'")
    with pytest.raises(UsageError, match=r"latin.py cannot be read"):
        check_file(tmp_path / "latin.py")


BAD = "import time\n@app.orchestration\nasync def f(ctx): time.sleep(1)\n"


@pytest.mark.parametrize(
    ("targets", "code", "text"),
    [
        (["bad.py"], 1, "bad.py:3:19: blocking-sleep: time.sleep in orchestration 'f'"),
        (["."], 1, "2 files checked, 1 finding\n"),
        (["good.py"], 0, "1 file checked, 0 findings\n"),
        (["none.py"], 2, "there is no file 'none.py'"),
        (["checked_app:app"], 2, "there is no module"),
    ],
)
def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, targets: list[str], code: int, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.py").write_text(BAD)
    (tmp_path / "good.py").write_text(BAD.replace("time.sleep(1)", "pass"))
    done = CliRunner().invoke(main, ["check", *targets])
    assert (done.exit_code, text in done.output) == (code, True), done.output


def test_the_command_speaks_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.py").write_text(BAD)
    done = CliRunner().invoke(main, ["check", "--format", "json", "bad.py"])
    (found,) = json.loads(done.stdout)
    assert (found["path"], found["line"], found["column"], found["rule"]) == (
        "bad.py",
        3,
        19,
        "blocking-sleep",
    )


def test_the_command_takes_an_app() -> None:
    done = CliRunner().invoke(main, ["check", "benchmarks.app:app"])
    assert (done.exit_code, "1 file checked, 0 findings" in done.output) == (0, True), done.output
