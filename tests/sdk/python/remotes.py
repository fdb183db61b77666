"""A git server on loopback, for whoever has the login."""

import base64
import contextlib
import http.server
import os
import subprocess
import threading

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


@contextlib.contextmanager
def serve(root, tls=None):
    """An upstream below that directory, over HTTP or, with an `ssl.SSLContext`, HTTPS."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Backend) as server:
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        server.root = root
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Upstream(root, f"http{'s' if tls else ''}://127.0.0.1:{server.server_port}")
        server.shutdown()
        thread.join()
