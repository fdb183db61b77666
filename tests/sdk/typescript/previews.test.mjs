// Preview links of the SDK, by programs and in a browser: a Vite dev server with hot reload and a page of server-sent
// events, by path and by host name.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'

import { chromium } from 'playwright-core'
import { createServer as createVite } from 'vite'

import { connect, startDaemon, startSandbox } from './support.mjs'

/** Milliseconds that a single thing in the browser may take; reached only when something is broken. */
const LIMIT = 60_000

/** A page of a fresh profile; gone when the test ends. */
async function openBrowser(t) {
  const directory = mkdtempSync(join(tmpdir(), 'toolboxd-browser-'))
  const context = await chromium.launchPersistentContext(directory, {
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    headless: true,
    args: [
      '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync',
    ],
  })
  context.setDefaultTimeout(LIMIT)
  t.after(async () => {
    await context.close()
    rmSync(directory, { recursive: true, force: true })
  })
  const page = await context.newPage()
  page.on('console', (message) => t.diagnostic(`console: ${message.text()}`))
  page.on('pageerror', (error) => t.diagnostic(`error: ${error}`))
  return page
}

/** A server on a free port, stopped when the test ends; gives its port. */
async function serve(t, handler) {
  const server = createServer(handler).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => (server.closeAllConnections(), server.close()))
  return server.address().port
}

/** A project of one page, served by Vite at `base`, which may depend on the port. */
async function startVite(t, base) {
  const root = mkdtempSync(join(tmpdir(), 'toolboxd-vite-'))
  writeFileSync(join(root, 'index.html'), '<h1>nothing yet</h1><script type="module" src="./main.js"></script>')
  const say = (word) => writeFileSync(join(root, 'words.js'), `export const word = '${word}'`)
  say('first')
  writeFileSync(join(root, 'main.js'), `
    import { word } from './words.js'
    const show = (word) => (document.querySelector('h1').textContent = word)
    window.loads = (window.loads ?? 0) + 1
    show(word)
    import.meta.hot.accept('./words.js', (words) => show(words.word))`)
  const probe = createServer().listen(0, '127.0.0.1')
  await once(probe, 'listening')
  const { port } = probe.address()
  await new Promise((closed) => probe.close(closed))
  const vite = await createVite({
    root, base: base(port), configFile: false, logLevel: 'error', cacheDir: join(root, '.vite'),
    server: { host: '127.0.0.1', port, strictPort: true },
  })
  await vite.listen()
  t.after(async () => {
    await vite.close()
    rmSync(root, { recursive: true, force: true })
  })
  return { port, say }
}

const hostUrl = (daemon, sandbox, port) =>
  `http://${port}-${sandbox.id.toLowerCase()}.localhost:${new URL(daemon.url).port}`

/** Loads the page at `url`, changes a module, and wants it replaced without a reload, all through the daemon. */
async function hotReload(t, vite, url) {
  const page = await openBrowser(t)
  const sockets = []
  page.on('websocket', (socket) => sockets.push(new URL(socket.url()).host))
  const connected = page.waitForEvent('console', (message) => message.text() === '[vite] connected.')
  await page.goto(url)
  const heading = page.locator('h1')
  await heading.getByText('first').waitFor()
  await connected
  await page.evaluate(() => (window.kept = 'kept'))
  vite.say('second')
  await heading.getByText('second').waitFor()
  assert.equal(await page.evaluate(() => window.kept), 'kept')
  // Vite would have tried its own port next.
  assert.deepEqual(sockets, [new URL(url).host])
  return page
}

test('a Vite dev server reloads hot at its host name', async (t) => {
  const { daemon, sandbox } = await startSandbox(t)
  const vite = await startVite(t, () => '/')
  await hotReload(t, vite, hostUrl(daemon, sandbox, vite.port))
})

test('a Vite dev server reloads hot at a path that it knows', async (t) => {
  const { daemon } = await startSandbox(t)
  const vite = await startVite(t, (port) => `/absproxy/${port}/`)
  await hotReload(t, vite, `${daemon.url}/absproxy/${vite.port}/`)
})

test('a Vite dev server behind a token is opened by its signed link', async (t) => {
  const daemon = await startDaemon(t, { env: { TOOLBOXD_TOKEN: 't0ken', TOOLBOXD_PREVIEW_LINKS: 'host' } })
  const sandbox = await connect(t, daemon, 't0ken').create()
  const vite = await startVite(t, () => '/')
  const { url } = await sandbox.getSignedPreviewUrl(vite.port, 600)
  const page = await hotReload(t, vite, url)
  assert.equal(page.url(), `${hostUrl(daemon, sandbox, vite.port)}/`)
})

/** A page that shows the events of its server, and the server's way to send one. */
async function startEvents(t) {
  const streams = []
  const port = await serve(t, (request, response) => {
    if (request.url !== '/events') return response.setHeader('content-type', 'text/html').end(`
      <ol></ol><script>new EventSource('events').onmessage = ({ data }) => {
        document.querySelector('ol').append(Object.assign(document.createElement('li'), { textContent: data }))
      }</script>`)
    response.writeHead(200, { 'content-type': 'text/event-stream' }).flushHeaders()
    streams.push(response)
    response.write('data: hello\n\n')
  })
  return { port, send: (text) => streams.forEach((stream) => stream.write(`data: ${text}\n\n`)) }
}

async function events(t, server, url) {
  const page = await openBrowser(t)
  await page.goto(url)
  for (const word of ['one', 'two']) {
    await page.locator('li').last().getByText(word === 'one' ? 'hello' : 'one').waitFor()
    server.send(word)
  }
  await page.locator('li').last().getByText('two').waitFor()
  assert.deepEqual(await page.locator('li').allTextContents(), ['hello', 'one', 'two'])
  return page
}

test('server-sent events arrive one by one at a host name', async (t) => {
  const { daemon, sandbox } = await startSandbox(t)
  const server = await startEvents(t)
  await events(t, server, hostUrl(daemon, sandbox, server.port))
})

test('server-sent events arrive one by one at the link that the SDK gives', async (t) => {
  const { sandbox } = await startSandbox(t)
  const server = await startEvents(t)
  const { url } = await sandbox.getPreviewLink(server.port)
  // Without a slash at its end: the browser is sent to where relative paths lead to the same port.
  const page = await events(t, server, url)
  assert.equal(page.url(), `${url}/`)
})

test('a signed link opens a path behind a token, with a cookie and without the token in sight', async (t) => {
  const daemon = await startDaemon(t, { env: { TOOLBOXD_TOKEN: 't0ken' } })
  const sandbox = await connect(t, daemon, 't0ken').create()
  const server = await startEvents(t)
  const { url } = await sandbox.getSignedPreviewUrl(server.port, 600)
  const page = await events(t, server, url)
  assert.equal(page.url(), `${daemon.url}/proxy/${server.port}/`)
  const [cookie] = await page.context().cookies(page.url())
  assert.deepEqual([cookie.path, cookie.httpOnly, cookie.sameSite], [`/proxy/${server.port}`, true, 'Lax'])
  const other = await page.context().newPage()
  assert.equal((await other.goto(`${daemon.url}/work-dir`)).status(), 401)
})

test('programs use the link with its token and the signed link alone', async (t) => {
  const daemon = await startDaemon(t, { env: { TOOLBOXD_TOKEN: 't0ken' } })
  const sandbox = await connect(t, daemon, 't0ken').create()
  const port = await serve(t, ({ url, headers }, response) => response.end(`${url} ${headers['x-daytona-preview-token']}`))
  const link = await sandbox.getPreviewLink(port)
  assert.equal((await fetch(link.url)).status, 401)
  const reply = await fetch(`${link.url}/a?b`, { headers: { 'x-daytona-preview-token': link.token } })
  assert.equal(await reply.text(), '/a?b undefined')
  const signed = await sandbox.getSignedPreviewUrl(port, 600)
  assert.equal(await (await fetch(signed.url)).text(), '/ undefined')
  await sandbox.expireSignedPreviewUrl(port, signed.token)
  assert.equal((await fetch(signed.url)).status, 401)
})
