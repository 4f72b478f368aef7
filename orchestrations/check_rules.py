"""What code of an orchestration must not do, as data: rules, and the names that break them.

Rules:

* A name is here only if nearly every use of it in an orchestration is a mistake: a check that cries wolf is
  switched off.
* Names are those of their modules (``datetime.datetime.now``), however the code imported them.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class Rule(StrEnum):
    """What is checked; the value is the code in reports and in ``# lungfish: ignore[code]``."""

    #: Reads the clock of the process.
    CLOCK = "wall-clock"
    #: Chance that replay would not repeat, uuids among it.
    CHANCE = "random"
    #: Waits in the thread: every actor of the host waits with it.
    SLEEP = "blocking-sleep"
    #: Files, sockets, processes, HTTP, databases.
    IO = "io"
    #: Threads, processes, executors; whatever does not run in the orchestration's own loop.
    THREADS = "threads"
    #: What differs between processes: environment, arguments, host name, process id.
    ENVIRONMENT = "environment"
    #: State that outlives the code and that other instances, or replay, change.
    GLOBAL = "global-state"
    #: The order of a set differs between processes.
    SET_ORDER = "set-order"
    #: ``hash()`` and ``id()`` differ between processes.
    ADDRESS = "address"
    #: A task that nobody waits for, nor keeps.
    UNAWAITED = "unawaited"
    #: Swallows the cancellation by which code is stopped and dropped.
    SWALLOWS = "swallows-cancel"
    #: Calls an activity's function in the orchestration itself.
    DIRECT = "direct-activity"


ADVICE: Final[Mapping[Rule, str]] = {
    Rule.CLOCK: "replay would see another time; use ctx.now()",
    Rule.CHANCE: "replay would draw another value; use ctx.random or ctx.uuid4()",
    Rule.SLEEP: "it blocks every actor of the host and is not durable; await ctx.sleep(...)",
    Rule.IO: "I/O is not repeated in replay and blocks the host; put it into an activity",
    Rule.THREADS: "only the orchestration's own loop is replayed; put it into an activity",
    Rule.ENVIRONMENT: "it differs between hosts and deployments; pass it as input, or read it in an activity",
    Rule.GLOBAL: "other instances and replays change it; use local variables, or an entity",
    Rule.SET_ORDER: "its order differs between processes; use sorted(...), a list or a dict",
    Rule.ADDRESS: "it differs between processes; use a value of the input",
    Rule.UNAWAITED: "nobody waits for it; await it, or assign it to `_` if that is meant",
    Rule.SWALLOWS: "it swallows cancellation; catch Exception, or raise again",
    Rule.DIRECT: "it runs here and again in each replay; await ctx.call_activity(...)",
}

_CLOCK: Final = (
    "time.time time.time_ns time.monotonic time.monotonic_ns time.perf_counter time.perf_counter_ns "
    "time.process_time datetime.datetime.now datetime.datetime.utcnow datetime.datetime.today "
    "datetime.date.today django.utils.timezone.now pandas.Timestamp.now"
)
_CHANCE: Final = (
    "random.random random.randint random.randrange random.choice random.choices random.sample "
    "random.shuffle random.uniform random.gauss random.betavariate random.expovariate random.normalvariate "
    "random.triangular random.getrandbits random.randbytes random.SystemRandom os.urandom "
    "uuid.uuid1 uuid.uuid4"
)
_ENVIRONMENT: Final = (
    "os.environ os.environb os.getenv os.getpid os.getppid os.getcwd os.uname os.cpu_count sys.argv "
    "platform.node platform.uname socket.gethostname threading.get_ident pathlib.Path.cwd pathlib.Path.home"
)
_IO: Final = (
    "open io.open input os.open os.system os.popen os.listdir os.scandir os.walk os.remove os.unlink "
    "os.rename os.replace os.mkdir os.makedirs os.rmdir os.stat os.path.exists os.path.isfile os.path.isdir "
    "os.path.getsize os.path.getmtime glob.glob glob.iglob urllib.request.urlopen "
    "urllib.request.urlretrieve sqlite3.connect asyncio.open_connection asyncio.start_server "
    "asyncio.open_unix_connection asyncio.create_subprocess_exec asyncio.create_subprocess_shell"
)
_THREADS: Final = (
    "asyncio.to_thread asyncio.run asyncio.run_coroutine_threadsafe asyncio.new_event_loop ray.get ray.wait "
    "ray.put"
)

#: Names whose use breaks a rule.
NAMES: Final[Mapping[str, Rule]] = {
    name: rule
    for rule, names in (
        (Rule.CLOCK, _CLOCK),
        (Rule.CHANCE, _CHANCE),
        (Rule.ENVIRONMENT, _ENVIRONMENT),
        (Rule.IO, _IO),
        (Rule.THREADS, _THREADS),
        (Rule.SLEEP, "time.sleep"),
        (Rule.ADDRESS, "hash id"),
    )
    for name in names.split()
}

#: Modules of which every call breaks a rule; their exceptions may be named.
MODULES: Final[Mapping[str, Rule]] = {
    "secrets": Rule.CHANCE,
    "numpy.random": Rule.CHANCE,
    "threading": Rule.THREADS,
    "multiprocessing": Rule.THREADS,
    "concurrent.futures": Rule.THREADS,
    **dict.fromkeys(
        [
            "socket",
            "subprocess",
            "shutil",
            "tempfile",
            "requests",
            "httpx",
            "aiohttp",
            "urllib3",
            "http.client",
            "smtplib",
            "ftplib",
            "psycopg",
            "psycopg2",
            "asyncpg",
            "redis",
            "valkey",
            "boto3",
            "pymongo",
            "aiofiles",
        ],
        Rule.IO,
    ),
}

#: Calls that read the clock, or draw chance, only when nothing is given: name and the arguments that make
#: it harmless.
WITHOUT_ARGUMENTS: Final[Mapping[str, tuple[Rule, int]]] = {
    "time.localtime": (Rule.CLOCK, 1),
    "time.gmtime": (Rule.CLOCK, 1),
    "time.ctime": (Rule.CLOCK, 1),
    "time.strftime": (Rule.CLOCK, 2),
    "random.Random": (Rule.CHANCE, 1),
}

#: Methods that break a rule on whatever they are called.
METHODS: Final[Mapping[str, Rule]] = {
    "read_text": Rule.IO,
    "read_bytes": Rule.IO,
    "write_text": Rule.IO,
    "write_bytes": Rule.IO,
    "run_in_executor": Rule.THREADS,
    "run_until_complete": Rule.THREADS,
}

#: Methods of the context whose task somebody must wait for.
TASK_METHODS: Final = frozenset(
    [
        "call_activity",
        "call_orchestration",
        "create_timer",
        "sleep",
        "wait_for_external_event",
        "when_all",
        "when_any",
    ]
)
#: Functions whose awaitable somebody must wait for.
AWAITABLES: Final = frozenset(["asyncio.sleep", "asyncio.gather", "asyncio.wait", "asyncio.wait_for"])
#: Functions that take a set and give what does not depend on its order.
ORDERLESS: Final = frozenset(["sorted", "set", "frozenset", "len", "sum", "min", "max", "any", "all"])
#: Functions whose result has the order of what they are given.
ORDERED: Final = frozenset(["list", "tuple", "enumerate", "iter", "next", "zip", "map", "filter", "reversed"])
#: Methods that change a list, dict or set.
MUTATORS: Final = frozenset(
    [
        "append",
        "appendleft",
        "extend",
        "insert",
        "remove",
        "pop",
        "popleft",
        "popitem",
        "clear",
        "add",
        "discard",
        "update",
        "setdefault",
        "sort",
    ]
)
