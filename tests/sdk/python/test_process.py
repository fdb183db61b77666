"""Commands, environment and facts of the sandbox, with both Python SDKs."""

import pytest
from conftest import done
from daytona.common.errors import DaytonaBadRequestError, DaytonaProcessExecutionTimeoutError, DaytonaTimeoutError


@pytest.fixture
def run(sandbox):
    async def run(command, **options):
        return await done(sandbox.process.exec(command, **options))

    return run


async def test_output_and_exit_code_come_back(run):
    response = await run("echo out; echo err >&2; exit 7")
    assert (response.exit_code, response.result) == (7, "out\nerr\n")
    assert response.artifacts.stdout == response.result
    assert (await run("true")).result == ""
    assert (await run("no-such-command")).exit_code == 127


async def test_directory_and_environment_are_given(run, work):
    (work / "sub dir").mkdir()
    response = await run('pwd; echo "$GREETING|$EMPTY|$QUOTED"', cwd="sub dir", env={"GREETING": "hi", "EMPTY": "", "QUOTED": "a'b\"c $d\n"})
    assert response.result == f"{work}/sub dir\nhi||a'b\"c $d\n\n"


async def test_any_script_runs(run):
    script = "for i in 1 2 3; do\n  printf '%s,' \"$i\"\ndone\ncat <<'END'\n'quoted' \"twice\" $HOME `x`\nEND\n"
    assert (await run(script)).result == "1,2,3,'quoted' \"twice\" $HOME `x`\n"
    assert (await run("echo ünï·日本")).result == "ünï·日本\n"


async def test_a_long_output_is_whole(run):
    result = (await run("seq 1 200000")).result
    assert result == "".join(f"{number}\n" for number in range(1, 200001))


async def test_a_slow_command_is_ended_in_time(run, work):
    with pytest.raises(DaytonaProcessExecutionTimeoutError) as caught:
        await run("sleep 60; touch late", timeout=1)
    assert isinstance(caught.value, DaytonaTimeoutError)
    assert (caught.value.status_code, caught.value.code) == (408, "PROCESS_EXECUTION_TIMEOUT")
    assert "timeout" in str(caught.value)
    assert not (work / "late").exists()


async def test_a_command_in_the_background_does_not_hold_the_answer(run):
    assert (await run("sleep 5 & echo started", timeout=4)).result == "started\n"


async def test_bad_commands_are_refused(run):
    for command, options in (("", {}), ("  \n", {}), ("true", {"env": {"A-B": "1"}})):
        with pytest.raises(DaytonaBadRequestError):
            await run(command, **options)


async def test_the_environment_of_later_commands_changes(sandbox, run):
    await done(sandbox.update_env({"ADDED": "yes", "GONE": "soon"}))
    assert (await run("echo $ADDED$GONE")).result == "yessoon\n"
    await done(sandbox.update_env({"ADDED": "still"}, unset=["GONE"]))
    assert (await run("echo $ADDED${GONE-gone}")).result == "stillgone\n"
    with pytest.raises(DaytonaBadRequestError):
        await done(sandbox.update_env({"A-B": "1"}))


async def test_directories_are_told(sandbox, daemon):
    assert await done(sandbox.get_work_dir()) == str(daemon.work)
    assert await done(sandbox.get_user_home_dir()) == str(daemon.home)
    assert await done(sandbox.get_user_root_dir()) == str(daemon.home)


async def test_metrics_are_told(sandbox):
    metrics = await done(sandbox.get_metrics_latest())
    assert metrics.cpu_count >= 1 and 0 <= metrics.cpu_used_pct <= 100
    assert 0 < metrics.mem_used <= metrics.mem_total and 0 < metrics.disk_used <= metrics.disk_total
    assert metrics.timestamp.tzinfo is not None
