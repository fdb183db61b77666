// What the SDK tests stand on: a daemon of their own, and a client of it.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, chownSync, copyFileSync, mkdirSync, mkdtempSync, openSync, readFileSync, realpathSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { createInterface } from 'node:readline'
import { setImmediate } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

import { Daytona } from '@daytonaio/sdk'

const BINARY =
  process.env.TOOLBOXD_BINARY ?? fileURLToPath(new URL('../../../target/debug/toolboxd', import.meta.url))

const own = (path) => fileURLToPath(new URL(path, import.meta.url))

/** With the packages and programs that tests/run installs. */
const PATH = [own('../../.venv/bin'), own('../node_modules/.bin'), process.env.PATH].join(delimiter)

/** User id of `nobody`, for what root is never forbidden. */
export const NOBODY = 65534

/**
 * Starts the binary on a free loopback port, in directories of its own, with the command as its entrypoint, and stops
 * it when the test ends.
 */
export async function startDaemon(t, { user, env = {}, command = [] } = {}) {
  const directory = realpathSync(mkdtempSync(join(tmpdir(), 'toolboxd-test-')))
  chmodSync(directory, 0o755)
  const [work, home, binary, log] = ['work', 'home', 'toolboxd', 'log'].map((name) => join(directory, name))
  for (const path of [work, home]) {
    mkdirSync(path)
    if (user !== undefined) chownSync(path, user, user)
  }
  copyFileSync(BINARY, binary)
  const child = spawn(binary, ['--listen', '127.0.0.1:0', ...command], {
    cwd: work,
    env: { PATH, HOME: home, LANG: 'C.UTF-8', ...env },
    stdio: ['ignore', 'pipe', openSync(log, 'w')],
    uid: user,
    gid: user,
  })
  t.after(async () => {
    if (child.exitCode === null) {
      child.kill('SIGTERM')
      await once(child, 'exit')
    }
    rmSync(directory, { recursive: true, force: true })
  })
  for await (const line of createInterface({ input: child.stdout })) {
    const url = line.split(' is ready on ')[1]
    if (url) return { url, work, home, log: () => readFileSync(log, 'utf8') }
  }
  throw new Error(`the daemon did not start:\n${readFileSync(log, 'utf8')}`)
}

/** A client of a daemon; closed when the test ends. */
export function connect(t, daemon, apiKey = 'any') {
  const client = new Daytona({ apiUrl: `${daemon.url}/api`, apiKey, target: 'local' })
  t.after(() => client[Symbol.asyncDispose]())
  return client
}

/** A daemon, a client of it, and its sandbox. */
export async function startSandbox(t, options) {
  const daemon = await startDaemon(t, options)
  const client = connect(t, daemon)
  const sandbox = await client.create()
  return { daemon, client, sandbox, fs: sandbox.fs, work: daemon.work }
}

/** Everything that an async iterator gives. */
export async function all(iterator) {
  const items = []
  for await (const item of iterator) items.push(item)
  return items
}

/** Asks again, at once, until the answer is yes. The test's own limit ends it. */
export async function until(check) {
  while (!(await check())) await setImmediate()
}
