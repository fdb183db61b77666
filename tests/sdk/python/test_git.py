"""Git methods that need no remote, of both Python SDKs."""

import os
import subprocess

import pytest
from conftest import done
from daytona.common.errors import (
    DaytonaBadRequestError,
    DaytonaConflictError,
    DaytonaGitBranchExistsError,
    DaytonaGitBranchNotFoundError,
    DaytonaGitDirtyWorktreeError,
    DaytonaGitMergeConflictError,
    DaytonaGitRepoNotFoundError,
    DaytonaNotFoundError,
)

NAME = "ünï · 日本 \"x\".txt"


@pytest.fixture
async def git(sdk):
    """The SDK's git object."""
    return (await done(sdk.create())).git


class Repo:
    """A repository on this side of the API, with the `git` program."""

    def __init__(self, daemon):
        self.root = daemon.work / "repo"
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(daemon.home), "GIT_CONFIG_NOSYSTEM": "1"}

    def __call__(self, *arguments):
        identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com"]
        return subprocess.run(
            ["git", *identity, *arguments],
            cwd=self.root,
            env=self.environment,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.rstrip("\n")

    def write(self, name, text):
        (self.root / name).write_text(text)


@pytest.fixture
async def repo(daemon, git):
    """`repo` with one commit of `a.txt`, made through the SDK."""
    await done(git.init("repo", initial_branch="main"))
    repo = Repo(daemon)
    repo.write("a.txt", "one\n")
    await done(git.add("repo", ["."]))
    await done(git.commit("repo", "first", "Grace", "grace@example.com"))
    return repo


async def states(git):
    """Name, staging and work tree of each file that has changed."""
    status = await done(git.status("repo"))
    return [(file.name, file.staging, file.worktree) for file in status.file_status]


async def test_files_are_staged_and_committed(git, repo):
    repo.write(NAME, "new\n")
    repo.write("a.txt", "two\n")
    assert await states(git) == [("a.txt", "Unmodified", "Modified"), (NAME, "Untracked", "Untracked")]
    await done(git.add("repo", [NAME]))
    assert await states(git) == [("a.txt", "Unmodified", "Modified"), (NAME, "Added", "Unmodified")]
    response = await done(git.commit("repo", "second\n\nbody", "Grace", "grace@example.com"))
    assert response.sha == repo("rev-parse", "HEAD")
    assert repo("log", "-1", "--format=%an <%ae> %cn %B") == "Grace <grace@example.com> Grace second\n\nbody"
    with pytest.raises(DaytonaConflictError):
        await done(git.commit("repo", "nothing", "Grace", "grace@example.com"))
    await done(git.commit("repo", "nothing", "Grace", "grace@example.com", allow_empty=True))
    assert repo("rev-list", "--count", "HEAD") == "3"
    repo("fsck", "--strict")


async def test_status_tells_branch_and_upstream(git, repo):
    status = await done(git.status("repo"))
    assert (status.current_branch, status.file_status, status.branch_published) == ("main", [], False)
    assert (status.ahead, status.behind, status.detached) == (0, 0, False)
    repo("update-ref", "refs/remotes/origin/main", "HEAD")
    repo("config", "remote.origin.url", "elsewhere")
    repo("config", "remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*")
    repo("config", "branch.main.remote", "origin")
    repo("config", "branch.main.merge", "refs/heads/main")
    repo("commit", "--quiet", "--allow-empty", "-m", "ahead")
    status = await done(git.status("repo"))
    assert (status.branch_published, status.ahead, status.upstream) == (True, 1, "origin/main")


async def test_branches_are_created_switched_and_deleted(git, repo):
    await done(git.create_branch("repo", "feature/x"))
    assert (await done(git.status("repo"))).current_branch == "feature/x"
    await done(git.checkout_branch("repo", "main"))
    branches = await done(git.branches("repo"))
    assert branches.branches == ["feature/x", "main"]
    with pytest.raises(DaytonaGitBranchExistsError):
        await done(git.create_branch("repo", "main"))
    with pytest.raises(DaytonaBadRequestError):
        await done(git.create_branch("repo", "no good"))
    with pytest.raises(DaytonaConflictError):
        await done(git.delete_branch("repo", "main"))
    await done(git.delete_branch("repo", "feature/x"))
    assert (await done(git.branches("repo"))).branches == ["main"]
    with pytest.raises(DaytonaGitBranchNotFoundError):
        await done(git.delete_branch("repo", "feature/x"))


async def test_checkout_loses_nothing(git, repo):
    repo("branch", "other")
    repo.write("a.txt", "two\n")
    repo("commit", "--quiet", "-am", "second")
    repo.write("a.txt", "mine\n")
    with pytest.raises(DaytonaGitDirtyWorktreeError):
        await done(git.checkout_branch("repo", "other"))
    with pytest.raises(DaytonaGitBranchNotFoundError):
        await done(git.checkout_branch("repo", "nosuch"))
    assert (repo("rev-parse", "--abbrev-ref", "HEAD"), (repo.root / "a.txt").read_text()) == ("main", "mine\n")
    await done(git.restore("repo", ["a.txt"]))
    await done(git.checkout_branch("repo", repo("rev-parse", "other")))
    assert (await done(git.status("repo"))).detached is True


async def test_reset_and_restore(git, repo):
    repo.write("a.txt", "staged\n")
    repo.write("b.txt", "staged\n")
    await done(git.add("repo", ["."]))
    await done(git.reset("repo", files=["b.txt"]))
    assert await states(git) == [("a.txt", "Modified", "Unmodified"), ("b.txt", "Untracked", "Untracked")]
    await done(git.reset("repo"))
    assert ("a.txt", "Unmodified", "Modified") in await states(git)
    await done(git.restore("repo", ["a.txt"]))
    assert (repo.root / "a.txt").read_text() == "one\n"
    await done(git.add("repo", ["b.txt"]))
    await done(git.restore("repo", ["b.txt"], staged=True))
    assert await states(git) == [("b.txt", "Untracked", "Untracked")]
    repo("commit", "--quiet", "--allow-empty", "-m", "second")
    await done(git.reset("repo", mode="keep", target="HEAD~1"))
    await done(git.reset("repo", mode="hard", target="HEAD"))
    assert repo("rev-list", "--count", "HEAD") == "1"
    with pytest.raises(DaytonaBadRequestError):
        await done(git.reset("repo", mode="odd"))
    with pytest.raises(DaytonaGitBranchNotFoundError):
        await done(git.reset("repo", target="nosuch"))
    with pytest.raises(DaytonaNotFoundError):
        await done(git.restore("repo", ["nosuch"]))


async def test_remotes(git, repo):
    assert (await done(git.remotes("repo"))).remotes == []
    await done(git.remote_add("repo", "origin", "https://example.com/a.git"))
    with pytest.raises(DaytonaConflictError):
        await done(git.remote_add("repo", "origin", "https://example.com/b.git"))
    await done(git.remote_add("repo", "origin", "https://example.com/b.git", overwrite=True))
    assert await done(git.remote_get("repo", "origin")) == "https://example.com/b.git"
    assert await done(git.remote_get("repo", "nosuch")) is None


async def test_settings(daemon, git, repo):
    assert await done(git.get_config("user.name")) is None
    await done(git.configure_user("Ada", "ada@example.com"))
    await done(git.configure_user("Local", "local@example.com", scope="local", path="repo"))
    await done(git.set_config("my.value", "a b ü"))
    assert await done(git.get_config("my.value")) == "a b ü"
    assert await done(git.get_config("user.email", scope="local", path="repo")) == "local@example.com"
    assert repo("config", "--global", "user.name") == "Ada"
    with pytest.raises(DaytonaBadRequestError):
        await done(git.set_config("nonsense", "x"))


async def test_errors_are_the_sdks_own(daemon, git, repo):
    with pytest.raises(DaytonaGitRepoNotFoundError):
        await done(git.status("nosuch"))
    with pytest.raises(DaytonaNotFoundError):
        await done(git.add("repo", ["nosuch"]))
    repo("checkout", "--quiet", "-b", "other")
    repo.write("a.txt", "theirs\n")
    repo("commit", "--quiet", "-am", "theirs")
    repo("checkout", "--quiet", "main")
    repo.write("a.txt", "ours\n")
    repo("commit", "--quiet", "-am", "ours")
    with pytest.raises(subprocess.CalledProcessError):
        repo("merge", "other")
    with pytest.raises(DaytonaGitMergeConflictError):
        await done(git.commit("repo", "m", "a", "a@b"))
    file = (await done(git.status("repo"))).file_status[0]
    assert (file.staging, file.worktree) == ("Updated but unmerged", "Updated but unmerged")
