"""Every session method and stream of both Python SDKs.

The streams are coroutines in both SDKs. A blocking call beside an open stream goes to a thread of its own.
"""

import asyncio
import hashlib
import inspect
from pathlib import Path

import pytest
from conftest import connect, done, start, until, within
from daytona import SessionExecuteRequest
from daytona.common.errors import (
    DaytonaBadRequestError,
    DaytonaCommandAlreadyCompletedError,
    DaytonaConflictError,
    DaytonaError,
    DaytonaGoneError,
    DaytonaNotFoundError,
    DaytonaSessionEndedError,
)


class Session:
    """A session of the daemon, and its methods in the blocking or the asyncio SDK."""

    def __init__(self, process, id):
        self.process, self.id = process, id

    async def call(self, method, *arguments):
        function = getattr(self.process, method)
        if inspect.iscoroutinefunction(inspect.unwrap(function)):
            return await within(function(self.id, *arguments))
        return await within(asyncio.to_thread(function, self.id, *arguments))

    async def run(self, command):
        """The result of a synchronous command."""
        return await self.call("execute_session_command", SessionExecuteRequest(command=command))

    async def start(self, command, **options):
        """The id of an asynchronous command."""
        request = SessionExecuteRequest(command=command, run_async=True, **options)
        return (await self.call("execute_session_command", request)).cmd_id

    async def input(self, command, data):
        await self.call("send_session_command_input", command, data)

    async def exit_code(self, command):
        return (await self.call("get_session_command", command)).exit_code

    async def logs(self, command):
        """Both streams, as they are now."""
        logs = await self.call("get_session_command_logs", command)
        return logs.stdout, logs.stderr

    def follow(self, command):
        return Stream(lambda out, err: self.process.get_session_command_logs_async(self.id, command, out, err))


class Stream:
    """A log stream that is read in the background, until it ends by itself."""

    def __init__(self, read):
        self.out, self.err = [], []
        self.arrived = asyncio.Event()
        self.task = asyncio.create_task(read(self.handler(self.out), self.handler(self.err)))
        self.task.add_done_callback(lambda _: self.arrived.set())

    def handler(self, chunks):
        def handle(chunk):
            chunks.append(chunk)
            self.arrived.set()

        return handle

    async def contains(self, out, err=""):
        """Waits for what begins the streams, exactly; they go on."""

        async def arrive():
            while ("".join(self.out), "".join(self.err)) != (out, err):
                assert out.startswith("".join(self.out)) and err.startswith("".join(self.err)), (self.out, self.err)
                assert not self.task.done(), ("the stream has ended", self.out, self.err)
                self.arrived.clear()
                await self.arrived.wait()

        await within(arrive())
        assert not self.task.done()

    async def whole(self):
        """Everything, once the stream has ended."""
        await within(self.task)
        return "".join(self.out), "".join(self.err)


async def create(sandbox, id):
    session = Session(sandbox.process, id)
    await session.call("create_session")
    return session


@pytest.fixture
async def session(sandbox):
    return await create(sandbox, "mine")


async def test_sessions_are_created_listed_got_and_deleted(sandbox):
    process = sandbox.process
    assert await done(process.list_sessions()) == []
    for id in ("zwei", "a b/ü?#%41", "one"):
        await done(process.create_session(id))
    assert [each.session_id for each in await done(process.list_sessions())] == ["zwei", "a b/ü?#%41", "one"]
    got = await done(process.get_session("a b/ü?#%41"))
    assert (got.session_id, got.commands) == ("a b/ü?#%41", [])
    await done(process.delete_session("a b/ü?#%41"))
    assert [each.session_id for each in await done(process.list_sessions())] == ["zwei", "one"]
    await done(process.create_session("a b/ü?#%41"))  # the id is free again
    assert [each.session_id for each in await done(process.list_sessions())] == ["zwei", "one", "a b/ü?#%41"]


async def test_a_command_gives_output_streams_and_exit_code(session):
    response = await session.run("echo out; echo err >&2; (exit 7)")
    assert (response.stdout, response.stderr, response.exit_code) == ("out\n", "err\n", 7)
    assert response.output in ("\1\1\1out\n\2\2\2err\n", "\2\2\2err\n\1\1\1out\n")
    assert response.cmd_id
    silent = await session.run("true")
    assert (silent.stdout, silent.stderr, silent.output, silent.exit_code) == ("", "", "", 0)
    assert (await session.run("no-such-command")).exit_code == 127
    unicode = await session.run("printf 'ünï·日本🦀'")
    assert unicode.stdout == "ünï·日本🦀"


async def test_commands_are_told_with_their_exit_codes(session):
    request = SessionExecuteRequest(command="read line", run_async=True)
    started = await session.call("execute_session_command", request)
    assert started.cmd_id
    assert (started.output, started.stdout, started.stderr, started.exit_code) == (None, "", "", None)
    running = await session.call("get_session_command", started.cmd_id)
    assert (running.id, running.command, running.exit_code) == (started.cmd_id, "read line", None)
    await session.input(started.cmd_id, "go")
    await until(lambda: has_ended(session, started.cmd_id))
    failed = await session.run("false # why not")
    told = (await session.call("get_session")).commands
    assert [(each.id, each.command, each.exit_code) for each in told] == [
        (started.cmd_id, "read line", 0),
        (failed.cmd_id, "false # why not", 1),
    ]
    assert (await done(session.process.list_sessions()))[0].commands == told


async def has_ended(session, command):
    return await session.exit_code(command) is not None


async def test_state_is_kept_between_commands(session, work):
    (work / "sub").mkdir()
    for command in ("cd sub", "export GREETING=hi; plain=kept", "greet() { echo \"$GREETING $1\"; }", "umask 027"):
        assert (await session.run(command)).exit_code == 0
    response = await session.run('pwd; greet you; echo $plain; umask; sh -c "echo $GREETING"')
    assert response.stdout == f"{work}/sub\nhi you\nkept\n{(await session.run('umask')).stdout}hi\n"
    await session.run("(exit 9)")
    assert (await session.run("echo $?")).stdout == "9\n"


async def test_a_script_of_many_lines_is_one_command(session):
    script = "for i in 1 2 3; do\n  printf '%s,' \"$i\"\ndone\ncat <<'END'\n'quoted' \"twice\" $HOME `x`\nEND"
    assert (await session.run(script)).stdout == "1,2,3,'quoted' \"twice\" $HOME `x`\n"
    long = "x" * 1_000_000
    assert (await session.run(f"printf %s {long}")).stdout == long


async def test_logs_are_told_while_a_command_runs_and_after(session):
    command = await session.start("echo out; echo err >&2; read line; echo \"got $line\"")
    await session.follow(command).contains("out\n", "err\n")
    assert await session.logs(command) == ("out\n", "err\n")
    assert await session.exit_code(command) is None
    await session.input(command, "it")
    assert await session.follow(command).whole() == ("out\nit\ngot it\n", "err\n")
    assert await session.logs(command) == ("out\nit\ngot it\n", "err\n")
    logs = await session.call("get_session_command_logs", command)
    assert logs.output.startswith(("\1\1\1out\n\2\2\2err\n", "\2\2\2err\n\1\1\1out\n"))


async def test_a_stream_follows_both_outputs_and_ends_by_itself(session):
    command = await session.start(
        "printf 'ünï·日本 🦀'; read a; echo; echo oops >&2; read b; echo 'last: ünï'; printf 'no newline' >&2",
        suppress_input_echo=True,
    )
    stream = session.follow(command)
    await stream.contains("ünï·日本 🦀")  # a part of a line, while the command waits
    await session.input(command, "go on")
    await stream.contains("ünï·日本 🦀\n", "oops\n")
    await session.input(command, "go on")
    assert await stream.whole() == ("ünï·日本 🦀\nlast: ünï\n", "oops\nno newline")
    assert await session.exit_code(command) == 0
    assert await session.follow(command).whole() == await session.logs(command)  # once more, after its end


async def test_a_stream_can_have_asynchronous_handlers(session):
    command = await session.start("seq 1 1000; echo done >&2")
    out, err = [], []

    async def on_stdout(chunk):
        await asyncio.sleep(0)
        out.append(chunk)

    async def on_stderr(chunk):
        await asyncio.sleep(0)
        err.append(chunk)

    await within(session.process.get_session_command_logs_async(session.id, command, on_stdout, on_stderr))
    assert "".join(out).split() == [str(number) for number in range(1, 1001)]
    assert "".join(err) == "done\n"


async def test_characters_are_whole_however_they_are_written(session):
    # Byte by byte, so that a character arrives in pieces.
    script = "import os\nfor byte in 'ünï·日本🦀'.encode() * 50: os.write(1, bytes([byte]))"
    command = await session.start(f'python3 -c "{script}"')
    assert await session.follow(command).whole() == ("ünï·日本🦀" * 50, "")


async def test_several_megabytes_arrive_exactly(session):
    lines = "seq 1 900000"
    expected = "".join(f"{number}\n" for number in range(1, 900_001))
    assert len(expected) > 5_000_000
    command = await session.start(f"{lines}; {lines} >&2")
    out, err = await session.follow(command).whole()
    assert digest(out) == digest(err) == digest(expected)
    out, err = await session.logs(command)
    assert digest(out) == digest(err) == digest(expected)
    assert digest((await session.run(lines)).stdout) == digest(expected)


def digest(text):
    # A failure shows this rather than megabytes.
    return len(text), hashlib.sha256(text.encode()).hexdigest()


async def test_input_answers_prompts_and_is_echoed(session):
    command = await session.start("printf 'name? '; read name; printf 'age? '; read age; echo \"$name is $age\"")
    stream = session.follow(command)
    await stream.contains("name? ")
    await session.input(command, "Ada ünï")
    await stream.contains("name? Ada ünï\nage? ")
    await session.input(command, "36\n")  # has its newline
    assert await stream.whole() == ("name? Ada ünï\nage? 36\nAda ünï is 36\n", "")


async def test_input_is_not_echoed_when_that_is_suppressed(session):
    command = await session.start("printf 'password: '; read word; echo ${#word}", suppress_input_echo=True)
    stream = session.follow(command)
    await stream.contains("password: ")
    await session.input(command, "secret")
    assert await stream.whole() == ("password: 6\n", "")


async def test_input_can_be_sent_at_once_and_before_the_commands_turn(session):
    first = await session.start("read line; echo first $line", suppress_input_echo=True)
    second = await session.start("read line; echo second $line", suppress_input_echo=True)
    await session.input(second, "two")
    await session.input(first, "one")
    assert await session.follow(second).whole() == ("second two\n", "")
    assert await session.logs(first) == ("first one\n", "")


async def test_a_running_program_reads_megabytes_of_input(session):
    command = await session.start("head -c 3000001 | sha256sum", suppress_input_echo=True)
    await session.input(command, "x" * 3_000_000)
    expected = hashlib.sha256(b"x" * 3_000_000 + b"\n").hexdigest()
    assert await session.follow(command).whole() == (f"{expected}  -\n", "")


async def test_a_command_that_has_ended_takes_no_input(session):
    command = await session.start("true")
    await session.follow(command).whole()
    await until(lambda: has_ended(session, command))
    synchronous = (await session.run("true")).cmd_id
    for id in (command, synchronous):
        with pytest.raises(DaytonaCommandAlreadyCompletedError) as caught:
            await session.input(id, "late")
        assert isinstance(caught.value, DaytonaGoneError)
        assert (caught.value.status_code, caught.value.code) == (410, "COMMAND_ALREADY_COMPLETED")
        assert "already completed with exit code 0" in str(caught.value)


@pytest.mark.parametrize(
    "text, code", [("exit 3", 3), ("exec false", 1), ("set -e; false; echo no", 1), ("kill -9 $$", 137)]
)
async def test_a_shell_that_ends_is_told_and_stays_readable(session, text, code):
    response = await session.run(f"echo last; {text}")
    assert (response.stdout, response.exit_code) == ("last\n", code)
    with pytest.raises(DaytonaSessionEndedError) as caught:
        await session.run("echo more")
    assert isinstance(caught.value, DaytonaGoneError)
    assert (caught.value.status_code, caught.value.code) == (410, "SESSION_ENDED")
    with pytest.raises(DaytonaSessionEndedError):
        await session.start("echo more")
    assert await session.exit_code(response.cmd_id) == code
    assert await session.follow(response.cmd_id).whole() == ("last\n", "")
    assert [each.exit_code for each in (await session.call("get_session")).commands] == [code]
    await session.call("delete_session")


async def test_what_is_unknown_is_said_to_be(sandbox, session):
    command = (await session.run("true")).cmd_id
    other = Session(sandbox.process, "other")
    for call in (
        lambda: other.call("get_session"),
        lambda: other.call("delete_session"),
        lambda: other.run("true"),
        lambda: other.start("true"),
        lambda: other.exit_code(command),
        lambda: other.logs(command),
        lambda: other.input(command, "x"),
        lambda: session.exit_code("missing"),
        lambda: session.logs("missing"),
        lambda: session.input("missing", "x"),
    ):
        with pytest.raises(DaytonaNotFoundError) as caught:
            await call()
        assert (caught.value.status_code, caught.value.code) == (404, "NOT_FOUND")
    # A refused WebSocket is not sorted by the SDKs.
    for stream in (other.follow(command), session.follow("missing")):
        with pytest.raises(DaytonaError, match="404"):
            await stream.whole()


async def test_ids_and_commands_are_checked(session):
    with pytest.raises(DaytonaConflictError) as caught:
        await session.call("create_session")
    assert (caught.value.status_code, caught.value.code) == (409, "CONFLICT")
    for id in ("", "entrypoint", "x" * 257):
        with pytest.raises(DaytonaBadRequestError):
            await Session(session.process, id).call("create_session")
    for command in ("", "  \n"):
        with pytest.raises(DaytonaBadRequestError):
            await session.run(command)
    assert (await session.call("get_session")).commands == []


async def test_deleting_a_running_session_ends_its_processes_calls_and_streams(session):
    command = await session.start("echo $$; sleep 1000 & echo $!; wait")
    stream = session.follow(command)
    pids = await until(lambda: two_lines(stream))
    queued = asyncio.create_task(session.run("echo never"))
    await until(lambda: commands(session, 2))
    await session.call("delete_session")
    assert not any(is_running(pid) for pid in pids)
    assert (await stream.whole())[0].split() == pids
    with pytest.raises(DaytonaSessionEndedError):
        await within(queued)
    with pytest.raises(DaytonaNotFoundError):
        await session.call("get_session")
    await session.call("create_session")
    assert (await session.run("echo anew")).stdout == "anew\n"


async def two_lines(stream):
    lines = "".join(stream.out).split("\n")
    return lines[:2] if len(lines) > 2 else None


def is_running(pid):
    """Whether it still runs; one that has ended may be there until init looks."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def commands(session, count):
    return len((await session.call("get_session")).commands) == count


async def test_sessions_run_beside_each_other(sandbox):
    one, two = [await create(sandbox, id) for id in ("one", "two")]
    # Each waits for what the other does.
    await one.run("mkfifo there back; where=one")
    await two.run("where=two")
    first = asyncio.create_task(one.run("echo from $where > there; cat back"))
    second = asyncio.create_task(two.run("cat there; echo from $where > back"))
    assert ((await within(first)).stdout, (await within(second)).stdout) == ("from two\n", "from one\n")


async def test_twenty_streams_at_once_get_everything(session, form):
    text = "echo ready; read line; seq 1 20000; seq 1 20000 >&2; echo done"
    command = await session.start(text, suppress_input_echo=True)
    streams = [session.follow(command) for _ in range(20)]
    # The blocking SDK reads each in a thread, of which asyncio has fewer than 20: the first ones, then.
    for stream in streams if form == "async" else streams[:3]:
        await stream.contains("ready\n")
    await done(session.process.send_session_command_input(session.id, command, "go"))
    numbers = "".join(f"{number}\n" for number in range(1, 20_001))
    for stream in streams:
        out, err = await stream.whole()
        assert (digest(out), digest(err)) == (digest(f"ready\n{numbers}done\n"), digest(numbers))


async def test_a_finished_commands_stream_is_whole_every_time(session):
    # All of it, and the close, may arrive together with the answer to the handshake.
    command = (await session.run("echo out; echo err >&2")).cmd_id
    for _ in range(50):
        assert await session.follow(command).whole() == ("out\n", "err\n")


async def test_the_entrypoint_is_a_session_with_logs(form):
    script = "printf 'ready? '; echo err >&2; cat go; echo 'ünï done'; exit 4"
    with start("sh", "-c", f"mkfifo go; {script}") as daemon:
        async with connect(daemon, form) as client:
            process = (await done(client.create())).process
            stream = Stream(process.get_entrypoint_logs_async)
            await stream.contains("ready? ", "err\n")
            session = await done(process.get_entrypoint_session())
            assert session.session_id == "entrypoint"
            assert [(each.id, each.exit_code) for each in session.commands] == [("entrypoint_command", None)]
            assert session.commands[0].command.startswith("'sh' '-c' 'mkfifo go;")
            logs = await done(process.get_entrypoint_logs())
            assert (logs.stdout, logs.stderr) == ("ready? ", "err\n")
            assert sorted(logs.output) == sorted("\1\1\1ready? \2\2\2err\n")
            await asyncio.to_thread((daemon.work / "go").write_text, "yes\n")
            assert await stream.whole() == ("ready? yes\nünï done\n", "err\n")
            await until(lambda: entrypoint_has_ended(process, 4))
            # By its names, as any other; and closed to all else.
            entrypoint = Session(process, "entrypoint")
            assert await entrypoint.logs("entrypoint_command") == ("ready? yes\nünï done\n", "err\n")
            assert await entrypoint.follow("entrypoint_command").whole() == ("ready? yes\nünï done\n", "err\n")
            assert await done(process.list_sessions()) == []
            for call in (
                lambda: entrypoint.run("true"),
                lambda: entrypoint.input("entrypoint_command", "x"),
                lambda: entrypoint.call("delete_session"),
            ):
                with pytest.raises(DaytonaBadRequestError):
                    await call()


async def entrypoint_has_ended(process, code):
    return (await done(process.get_entrypoint_session())).commands[0].exit_code == code


async def test_without_a_command_the_entrypoint_is_idle(sandbox):
    session = await done(sandbox.process.get_entrypoint_session())
    assert [(each.id, each.command, each.exit_code) for each in session.commands] == [("entrypoint_command", "", 0)]
    logs = await done(sandbox.process.get_entrypoint_logs())
    assert (logs.output, logs.stdout, logs.stderr) == ("", "", "")
    assert await Stream(sandbox.process.get_entrypoint_logs_async).whole() == ("", "")
