"""Preview links, plain and signed, used by a program, with both Python SDKs."""

import asyncio
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import httpx
import pytest
from conftest import done, start
from daytona import AsyncDaytona, Daytona, DaytonaConfig


class App(BaseHTTPRequestHandler):
    """Tells what it was asked, and with which pass."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = f"{self.path} {self.headers['X-Daytona-Preview-Token']} {self.headers['Host']}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(201)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[::-1])

    def log_message(self, *_):
        pass


@contextmanager
def app():
    server = ThreadingHTTPServer(("127.0.0.1", 0), App)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def get(url, **headers):
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.get(url, headers=headers)


async def test_a_preview_link_reaches_the_app(sandbox):
    with app() as port:
        link = await done(sandbox.get_preview_link(port))
        assert (await get(link.url)).text == f"/ None localhost:{port}"
        assert (await get(f"{link.url}/a%2Fb?c=d")).text == f"/a%2Fb?c=d None localhost:{port}"
        async with httpx.AsyncClient(trust_env=False) as client:
            reply = await client.post(f"{link.url}/x", content=b"abc")
        assert (reply.status_code, reply.content) == (201, b"cba")


async def test_links_stand_for_the_token(form):
    with start(TOOLBOXD_TOKEN="t0ken") as daemon, app() as port:
        config = DaytonaConfig(api_url=f"{daemon.url}/api", api_key="t0ken", target="local")
        client = Daytona(config) if form == "sync" else AsyncDaytona(config)
        try:
            sandbox = await done(client.create())
            link = await done(sandbox.get_preview_link(port))
            assert (await get(link.url)).status_code == 401
            reply = await get(f"{link.url}/", **{"X-Daytona-Preview-Token": link.token})
            assert reply.text == f"/ None localhost:{port}"
            signed = await done(sandbox.create_signed_preview_url(port, expires_in_seconds=600))
            assert (await get(signed.url)).text == f"/ None localhost:{port}"
            await done(sandbox.expire_signed_preview_url(port, signed.token))
            assert (await get(signed.url)).status_code == 401
            brief = await done(sandbox.create_signed_preview_url(port, expires_in_seconds=1))

            async def refused():
                while (await get(brief.url)).status_code != 401:
                    await asyncio.sleep(0)

            await asyncio.wait_for(refused(), 30)
        finally:
            if form == "async":
                await client.close()


@pytest.mark.parametrize("text", ["%2B", "0", "%20"])
async def test_a_port_is_plain_digits(sandbox, text):
    with app() as port:
        link = await done(sandbox.get_preview_link(port))
        assert (await get(link.url.replace(f"/{port}", f"/{text}{port}"))).status_code == 400
