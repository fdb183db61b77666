"""Contexts and runs of the interpreter, with both Python SDKs."""

import asyncio
import inspect
import os

import pytest
from conftest import done, within
from daytona.common.errors import DaytonaError, DaytonaTimeoutError


class Interpreter:
    """The interpreter in the blocking or the asyncio SDK. Blocking calls go to threads, so that several can run."""

    def __init__(self, code_interpreter):
        self.inner = code_interpreter

    async def call(self, method, *arguments, **options):
        function = getattr(self.inner, method)
        if inspect.iscoroutinefunction(inspect.unwrap(function)):
            return await within(function(*arguments, **options))
        return await within(asyncio.to_thread(function, *arguments, **options))

    async def run(self, code, **options):
        return await self.call("run_code", code, **options)


@pytest.fixture
def interpreter(sandbox):
    return Interpreter(sandbox.code_interpreter)


async def test_output_arrives_by_stream_and_by_callback(interpreter):
    out, err, errors = [], [], []
    result = await interpreter.run(
        "import sys\nprint('one')\nprint('bad', file=sys.stderr)\nprint('two', end='')",
        on_stdout=lambda message: out.append(message.output),
        on_stderr=lambda message: err.append(message.output),
        on_error=errors.append,
    )
    assert (result.stdout, result.stderr, result.error) == ("one\ntwo", "bad\n", None)
    assert ("".join(out), "".join(err), errors) == ("one\ntwo", "bad\n", [])


async def test_an_error_is_a_result(interpreter):
    errors = []
    result = await interpreter.run("def f(): return 1 / 0\nprint('on')\nf()", on_error=errors.append)
    assert result.stdout == "on\n"
    assert (result.error.name, result.error.value) == ("ZeroDivisionError", "division by zero")
    assert 'File "<stdin>", line 1, in f' in result.error.traceback and "line 3, in <module>" in result.error.traceback
    assert [error.name for error in errors] == ["ZeroDivisionError"]


async def test_state_stays_in_its_context(interpreter, work):
    await interpreter.run("x = 5")
    assert (await interpreter.run("print(x)")).stdout == "5\n"
    (work / "sub").mkdir()
    context = await interpreter.call("create_context", str(work / "sub"))
    assert (context.language, context.active, context.cwd) == ("python", True, str(work / "sub"))
    assert (await interpreter.run("import os; print(os.getcwd())", context=context)).stdout == f"{work}/sub\n"
    assert (await interpreter.run("x", context=context)).error.name == "NameError"
    assert [one.id for one in await interpreter.call("list_contexts")] == [context.id]
    await interpreter.call("delete_context", context)
    assert await interpreter.call("list_contexts") == []
    with pytest.raises(DaytonaError, match="context not found"):
        await interpreter.run("1", context=context)


async def test_two_contexts_run_at_the_same_time(interpreter, work):
    for name in ("there", "back"):
        os.mkfifo(work / name)
    first = await interpreter.call("create_context", str(work))
    second = await interpreter.call("create_context", str(work))
    # Each waits for the other.
    results = await asyncio.gather(
        interpreter.run("open('there', 'w').write('x'); print(open('back').read())", context=first),
        interpreter.run("print(open('there').read()); open('back', 'w').write('y')", context=second),
    )
    assert [result.stdout for result in results] == ["y\n", "x\n"]


async def test_variables_are_there_for_one_run(interpreter):
    show = "import os; print(os.environ.get('GREETING'))"
    assert (await interpreter.run(show, envs={"GREETING": "hi"})).stdout == "hi\n"
    assert (await interpreter.run(show)).stdout == "None\n"


async def test_a_slow_run_ends_in_time(interpreter):
    await interpreter.run("x = 5")
    with pytest.raises(DaytonaTimeoutError):
        await interpreter.run("while True: pass", timeout=1)
    assert (await interpreter.run("print(x)")).stdout == "5\n"


async def test_a_worker_that_dies_is_an_error(interpreter):
    with pytest.raises(DaytonaError, match="worker process ended"):
        await interpreter.run("import os; os._exit(3)")
    result = await interpreter.run("print('again')")
    assert result.stdout == "again\n" and "exited with code 3" in result.stderr


async def test_ten_megabytes_arrive(interpreter):
    result = await interpreter.run("for n in range(100000): print(f'{n:099}')")
    assert result.stdout == "".join(f"{n:099}\n" for n in range(100000))


async def test_whoever_prints_is_heard(interpreter):
    code = "import os, subprocess\nsubprocess.run(['echo', 'sub'])\nif os.fork() == 0:\n    print('child')\n    os._exit(0)\nos.wait()\nprint('parent')"
    assert (await interpreter.run(code)).stdout == "sub\nchild\nparent\n"
    assert (await interpreter.run("input()")).error.name == "EOFError"
