"""Clone, pull, push and credentials with both Python SDKs, against a private server on loopback."""

import base64
import http.server
import os
import subprocess
import threading

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

LOGIN = ("me", "s3cr3t")
ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "A",
    "GIT_AUTHOR_EMAIL": "a@example.com",
    "GIT_COMMITTER_NAME": "C",
    "GIT_COMMITTER_EMAIL": "c@example.com",
}


def git(directory, *arguments):
    """What the git program prints; it must succeed."""
    command = ["git", "-c", "safe.directory=*", *arguments]
    return subprocess.run(command, cwd=directory, env=ENVIRONMENT, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


class Backend(http.server.BaseHTTPRequestHandler):
    """`git http-backend` for whoever has the login."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        wanted = "Basic " + base64.b64encode(":".join(LOGIN).encode()).decode()
        body = self.body()
        if self.headers.get("authorization") != wanted:
            return self.reply(401, {"WWW-Authenticate": 'Basic realm="x"'}, b"")
        path, _, query = self.path.partition("?")
        environment = {
            **ENVIRONMENT,
            "GIT_PROJECT_ROOT": str(self.server.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REMOTE_USER": LOGIN[0],
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("content-type", ""),
            "CONTENT_LENGTH": str(len(body)),
        }
        command = ["git", "-c", "safe.directory=*", "http-backend"]
        output = subprocess.run(command, env=environment, input=body, stdout=subprocess.PIPE, check=False).stdout
        head, _, content = output.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
        self.reply(int(headers.pop("Status", "200")[:3]), headers, content)

    do_POST = do_GET

    def body(self):
        if self.headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("content-length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def reply(self, status, headers, content):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


class Upstream:
    """A bare repository with a branch `main` and a branch `test`, and a work tree that pushes to it."""

    def __init__(self, root, url):
        self.bare, self.work, self.url = root / "repo.git", root / "work", f"{url}/repo.git"
        git(root, "init", "-q", "--bare", "--initial-branch=main", "repo.git")
        git(root, "init", "-q", "--initial-branch=main", "work")
        git(self.work, "remote", "add", "origin", "../repo.git")
        self.commit("README", "one\n")
        git(self.work, "push", "-q", "origin", "main:test")

    def commit(self, name, content):
        (self.work / name).write_text(content)
        git(self.work, "add", "--all")
        git(self.work, "commit", "-q", "-m", name)
        git(self.work, "push", "-q", "origin", "HEAD")
        return git(self.work, "rev-parse", "HEAD")

    def tip(self, branch):
        return git(self.bare, "rev-parse", branch)


@pytest.fixture
def upstream(tmp_path):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Backend) as server:
        server.root = tmp_path
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Upstream(tmp_path, f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
        thread.join()


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
