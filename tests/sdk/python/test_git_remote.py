"""Clone, pull, push and credentials with both Python SDKs, against a private server on loopback."""

import pytest
from conftest import done
from daytona.common.errors import (
    DaytonaConflictError,
    DaytonaGitAuthFailedError,
    DaytonaGitBranchNotFoundError,
    DaytonaGitDirtyWorktreeError,
    DaytonaGitMergeConflictError,
    DaytonaGitPushRejectedError,
    DaytonaGitRemoteRejectedError,
    DaytonaGitRepoNotFoundError,
    DaytonaGitTransportFailedError,
    DaytonaNotFoundError,
)
from remotes import LOGIN, git, serve


@pytest.fixture
def upstream(tmp_path):
    with serve(tmp_path) as upstream:
        yield upstream


@pytest.fixture
def call(sandbox):
    async def call(method, *arguments, **options):
        return await done(getattr(sandbox.git, method)(*arguments, **options))

    return call


async def test_a_repository_is_cloned_changed_pushed_and_pulled(call, upstream, work):
    await call("clone", upstream.url, "repo", username=LOGIN[0], password=LOGIN[1])
    status = await call("status", "repo")
    assert (status.current_branch, status.branch_published, status.ahead, status.behind) == ("main", True, 0, 0)
    (work / "repo/new").write_text("x")
    await call("add", "repo", ["new"])
    commit = await call("commit", "repo", "message", "A", "a@example.com")
    assert (await call("status", "repo")).ahead == 1
    await call("push", "repo", *LOGIN)
    assert upstream.tip("main") == commit.sha
    git(upstream.work, "pull", "-q", "origin", "main")
    tip = upstream.commit("README", "two\n")
    await call("pull", "repo", username=LOGIN[0], password=LOGIN[1])
    assert git(work / "repo", "rev-parse", "HEAD") == tip
    assert (work / "repo/README").read_text() == "two\n"
    git(work / "repo", "fsck", "--strict")
    assert LOGIN[1] not in (work / "repo/.git/config").read_text()


async def test_branches_commits_and_depths_are_chosen(call, upstream, work):
    first = upstream.tip("main")
    upstream.commit("README", "two\n")
    login = {"username": LOGIN[0], "password": LOGIN[1]}
    await call("clone", upstream.url, "branch", branch="test", **login)
    assert (await call("status", "branch")).current_branch == "test"
    await call("clone", upstream.url, "commit", commit_id=first[:10], **login)
    status = await call("status", "commit")
    assert (status.current_branch, status.detached) == ("HEAD", True)
    assert git(work / "commit", "rev-parse", "HEAD") == first
    await call("clone", upstream.url, "shallow", depth=1, **login)
    assert git(work / "shallow", "rev-list", "--count", "HEAD") == "1"
    tip = upstream.commit("README", "three\n")
    await call("pull", "shallow", remote="origin", branch="main", **login)
    assert git(work / "shallow", "rev-parse", "HEAD") == tip


async def test_a_new_branch_gets_its_upstream(call, upstream):
    await call("clone", upstream.url, "repo", username=LOGIN[0], password=LOGIN[1])
    await call("create_branch", "repo", "topic")
    await call("push", "repo", username=LOGIN[0], password=LOGIN[1], set_upstream=True)
    status = await call("status", "repo")
    assert (status.branch_published, status.upstream) == (True, "origin/topic")
    assert upstream.tip("topic") == upstream.tip("main")


async def test_kept_credentials_serve_later_calls(call, upstream, daemon):
    host = upstream.url.removeprefix("http://").split("/")[0]
    await call("dangerously_authenticate", *LOGIN, host, "http")
    assert (daemon.home / ".git-credentials").read_text() == f"http://me:s3cr3t@{host}\n"
    assert await call("get_config", "credential.helper") == "store"
    await call("clone", upstream.url, "repo")
    await call("push", "repo")
    await call("init", "other")
    await call("remote_add", "other", "origin", upstream.url, fetch=True)
    assert git(daemon.work / "other", "rev-parse", "origin/test") == upstream.tip("test")
    assert [remote.name for remote in (await call("remotes", "other")).remotes] == ["origin"]


async def test_failures_have_their_classes(call, upstream, work):
    async def fails(error, method, *arguments, **options):
        with pytest.raises(error):
            await call(method, *arguments, **options)

    login = {"username": LOGIN[0], "password": LOGIN[1]}
    await fails(DaytonaGitAuthFailedError, "clone", upstream.url, "repo")
    await fails(DaytonaGitAuthFailedError, "clone", upstream.url, "repo", username="me", password="wrong")
    await fails(DaytonaGitRepoNotFoundError, "clone", upstream.url.replace("repo", "none"), "repo", **login)
    await fails(DaytonaGitBranchNotFoundError, "clone", upstream.url, "repo", branch="none", **login)
    await fails(DaytonaGitBranchNotFoundError, "clone", upstream.url, "repo", commit_id="zzz", **login)
    await fails(DaytonaGitTransportFailedError, "clone", "http://host.invalid/x", "repo")
    assert not (work / "repo").exists()
    await call("clone", upstream.url, "repo", **login)
    await fails(DaytonaConflictError, "clone", upstream.url, "repo", **login)
    await fails(DaytonaNotFoundError, "push", "repo", remote="none")
    # Something is in the way here, then there, then in both places.
    upstream.commit("README", "theirs\n")
    (work / "repo/README").write_text("ours\n")
    await fails(DaytonaGitDirtyWorktreeError, "pull", "repo", **login)
    assert (work / "repo/README").read_text() == "ours\n"
    await call("add", "repo", ["README"])
    await call("commit", "repo", "ours", "A", "a@example.com")
    await fails(DaytonaGitPushRejectedError, "push", "repo", **login)
    await fails(DaytonaGitMergeConflictError, "pull", "repo", **login)
    hook = upstream.bare / "hooks/pre-receive"
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    await call("create_branch", "repo", "topic")
    await fails(DaytonaGitRemoteRejectedError, "push", "repo", **login)
