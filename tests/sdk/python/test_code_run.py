"""Programs in each language, with both Python SDKs."""

import json

import pytest
from conftest import done
from daytona import CreateSandboxFromSnapshotParams
from daytona.common.process import CodeRunParams

ARGV = ["a b", "", "$HOME", "'\"", "*", "é\n;"]
SHOW = {
    "python": "import json, os, sys\nprint(json.dumps([sys.argv[1:], os.environ['GREETING']]))",
    "javascript": "console.log(JSON.stringify([process.argv.slice(1), process.env.GREETING]))",
    "typescript": "const argv: string[] = process.argv.slice(1)\nconsole.log(JSON.stringify([argv, process.env.GREETING]))",
}
FAIL = {
    "python": ("import sys\nprint('out')\n\nraise ValueError('here')", 'File "<stdin>", line 4'),
    "javascript": ("console.log('out')\n\nthrow new Error('here')", "[stdin]:3"),
    "typescript": ("interface A { x: number }\nconsole.log('out')\n\nthrow new Error('here')", "main.ts:4"),
}


async def run(sdk, language, code, params=None, timeout=None):
    sandbox = await done(sdk.create(CreateSandboxFromSnapshotParams(language=language)))
    return await done(sandbox.process.code_run(code, params, timeout))


async def failure(call):
    """What a call raises. This method of the SDKs gives the error of the client below as it is."""
    with pytest.raises(Exception) as caught:
        await call
    return caught.value


@pytest.mark.parametrize("language", SHOW)
async def test_arguments_and_environment_arrive_as_they_are(sdk, language):
    response = await run(sdk, language, SHOW[language], CodeRunParams(argv=ARGV, env={"GREETING": "h'i $x"}))
    assert response.exit_code == 0, response.result
    assert json.loads(response.result) == [ARGV, "h'i $x"]
    assert response.artifacts.stdout == response.result and response.artifacts.charts == []


@pytest.mark.parametrize("language", FAIL)
async def test_errors_name_the_line(sdk, language):
    code, place = FAIL[language]
    response = await run(sdk, language, code)
    assert response.exit_code == 1
    assert response.result.startswith("out\n") and place in response.result and "here" in response.result


async def test_a_slow_program_is_ended_in_time(sdk):
    error = await failure(run(sdk, "python", "while True: pass", timeout=1))
    assert error.status == 408 and "command execution timeout" in str(error)


async def test_much_output_is_whole(sdk):
    response = await run(sdk, "python", "for n in range(200000): print(n)")
    assert response.result == "".join(f"{n}\n" for n in range(200000))


async def test_input_has_ended_and_bad_variables_are_refused(sdk):
    response = await run(sdk, "python", "try: input()\nexcept EOFError: print('end')")
    assert response.result == "end\n"
    error = await failure(run(sdk, "python", "pass", CodeRunParams(env={"A-B": "1"})))
    assert error.status == 400 and "A-B" in str(error)
