"""The life of the one sandbox, with both Python SDKs."""

import asyncio
import subprocess
import sys

import pytest
from conftest import done, items, start
from daytona import (
    CreateSandboxFromImageParams,
    CreateSandboxFromSnapshotParams,
    Daytona,
    DaytonaConfig,
    DaytonaError,
    ListSandboxesQuery,
    Resources,
)
from daytona.common.errors import DaytonaAuthenticationError, DaytonaBadRequestError, DaytonaNotFoundError
from daytona_api_client import SandboxState


async def test_create_get_and_list_give_the_same_sandbox(sdk):
    params = CreateSandboxFromSnapshotParams(
        name="mine", labels={"team": "a"}, env_vars={"GREETING": "hi"}, public=True, auto_stop_interval=7
    )
    sandbox = await done(sdk.create(params))
    assert sandbox.state == SandboxState.STARTED
    assert (sandbox.name, sandbox.labels["team"], sandbox.public) == ("mine", "a", True)
    assert sandbox.auto_stop_interval == 7
    assert (await done(sandbox.process.exec("echo $GREETING"))).result == "hi\n"
    for key in (sandbox.id, "mine"):
        assert (await done(sdk.get(key))).id == sandbox.id
    assert [one.id for one in await items(sdk.list())] == [sandbox.id]
    listed = (await items(sdk.list(ListSandboxesQuery(labels={"team": "a"}, states=[SandboxState.STARTED]))))[0]
    assert await done(listed.get_work_dir()) == await done(sandbox.get_work_dir())
    assert await items(sdk.list(ListSandboxesQuery(labels={"team": "b"}))) == []
    assert await items(sdk.list(ListSandboxesQuery(states=[SandboxState.STOPPED, SandboxState.ERROR]))) == []
    assert await items(sdk.list(ListSandboxesQuery(name="other"))) == []


async def test_wishes_that_cannot_be_honoured_do_not_stop_create(sdk, daemon):
    params = CreateSandboxFromImageParams(image="debian:12", resources=Resources(cpu=4, memory=8))
    sandbox = await done(sdk.create(params, on_snapshot_create_logs=print))
    assert (await done(sandbox.process.exec("echo works"))).result == "works\n"
    assert "nothing here can honour buildInfo, cpu, memory" in daemon.log.read_text()
    await done(sdk.create(CreateSandboxFromSnapshotParams(snapshot="some")))
    assert "nothing here can honour snapshot" in daemon.log.read_text()


async def test_it_stops_and_starts(sdk, sandbox):
    await done(sandbox.stop())
    assert sandbox.state == SandboxState.STOPPED
    await done(sandbox.wait_for_sandbox_stop())
    assert (await done(sdk.get(sandbox.id))).state == SandboxState.STOPPED
    await done(sandbox.start())
    assert sandbox.state == SandboxState.STARTED
    await done(sandbox.wait_for_sandbox_start())
    await done(sdk.stop(sandbox))
    await done(sdk.start(sandbox))
    await done(sandbox.refresh_data())
    assert sandbox.state == SandboxState.STARTED


async def test_it_is_deleted_and_made_again(sdk, sandbox):
    first = sandbox.id
    await done(sandbox.set_labels({"old": "label"}))
    await done(sandbox.delete(wait=True))
    assert sandbox.state == SandboxState.DESTROYED
    with pytest.raises(DaytonaNotFoundError):
        await done(sdk.get(first))
    with pytest.raises(DaytonaNotFoundError):
        await done(sandbox.start())
    assert await items(sdk.list()) == []
    again = await done(sdk.create())
    assert again.id == first and "old" not in again.labels
    await done(sdk.delete(again))


async def test_an_ephemeral_sandbox_is_gone_when_it_stops(sdk):
    sandbox = await done(sdk.create(CreateSandboxFromSnapshotParams(ephemeral=True)))
    await done(sandbox.stop())
    assert sandbox.state == SandboxState.DESTROYED


async def test_who_waits_learns_of_a_change_by_another(sdk, sandbox):
    other = await done(sdk.get(sandbox.id))
    await done(other.stop())
    # Told by an event at once, or by the next poll.
    wait = sandbox.wait_for_sandbox_stop(timeout=30)
    await done(wait)
    assert sandbox.state == SandboxState.STOPPED


async def test_labels_intervals_and_flags_are_kept(sdk, sandbox):
    assert await done(sandbox.set_labels({"a": "1", "flag": "true"})) == {"a": "1", "flag": "true"}
    await done(sandbox.set_autostop_interval(5))
    await done(sandbox.set_auto_archive_interval(6))
    await done(sandbox.set_auto_delete_interval(-1))
    await done(sandbox.set_public(True))
    await done(sandbox.refresh_activity())
    fresh = await done(sdk.get(sandbox.id))
    assert fresh.labels == {"a": "1", "flag": "true"} and fresh.public
    assert (fresh.auto_stop_interval, fresh.auto_archive_interval, fresh.auto_delete_interval) == (5, 6, -1)


async def test_preview_links_lead_to_the_proxy(sandbox, daemon):
    link = await done(sandbox.get_preview_link(3000))
    assert (link.url, link.sandbox_id) == (f"{daemon.url}/proxy/3000", sandbox.id)
    assert link.token
    signed = await done(sandbox.create_signed_preview_url(3000, expires_in_seconds=120))
    assert (signed.port, signed.sandbox_id) == (3000, sandbox.id)
    assert signed.url.startswith(f"{daemon.url}/proxy/3000") and signed.token in signed.url
    await done(sandbox.expire_signed_preview_url(3000, signed.token))
    with pytest.raises(DaytonaNotFoundError):
        await done(sandbox.expire_signed_preview_url(3000, signed.token))
    with pytest.raises(DaytonaBadRequestError):
        await done(sandbox.create_signed_preview_url(3000, expires_in_seconds=10**6))


async def test_what_needs_a_platform_says_so(sdk, sandbox):
    calls = [
        lambda: sandbox.resize(Resources(cpu=2)),
        lambda: sandbox.archive(),
        lambda: sandbox.fork(),
        lambda: sandbox.create_snapshot("x"),
        lambda: sdk.volume.list(),
        lambda: sdk.snapshot.get("x"),
    ]
    for call in calls:
        with pytest.raises(DaytonaError, match="needs a platform") as caught:
            await done(call())
        assert (caught.value.status_code, caught.value.code) == (501, "NOT_IMPLEMENTED")


async def test_an_unknown_sandbox_is_not_found(sdk):
    with pytest.raises(DaytonaNotFoundError):
        await done(sdk.get("no-such-sandbox"))


async def test_the_api_key_is_the_token_where_one_is_wanted():
    with start(TOOLBOXD_TOKEN="t0ken") as daemon:

        def client(key):
            return Daytona(DaytonaConfig(api_url=f"{daemon.url}/api", api_key=key, target="local"))

        sandbox = client("t0ken").create()
        assert sandbox.process.exec("echo in").result == "in\n"
        with pytest.raises(DaytonaAuthenticationError):
            client("other").create()


@pytest.mark.parametrize("program", ["sync", "async"])
async def test_a_program_ends_when_it_is_done(daemon, program):
    sync = "Daytona(config).create().process.exec('true')"
    asynchronous = (
        "import asyncio\n"
        "async def main():\n"
        "    async with AsyncDaytona(config) as client:\n"
        "        await (await client.create()).process.exec('true')\n"
        "asyncio.run(main())"
    )
    text = (
        "from daytona import AsyncDaytona, Daytona, DaytonaConfig\n"
        f"config = DaytonaConfig(api_url='{daemon.url}/api', api_key='any', target='local')\n"
        f"{sync if program == 'sync' else asynchronous}\n"
    )
    run = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", text], timeout=30, capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
