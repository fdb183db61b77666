// The desktop's life, its displays and windows, with the TypeScript SDK: a desktop of the daemon's own.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { createServer } from 'node:net'
import { once } from 'node:events'
import { test } from 'node:test'

import { DaytonaNotFoundError } from '@daytonaio/sdk'

import { startSandbox, until } from './support.mjs'

const PROCESSES = { xvfb: 100, xfce4: 200, x11vnc: 300, novnc: 400 }
let number = 35000 + (process.pid % 2000) * 10

/** A number that no display has and no other test asks for. */
function freeDisplay() {
  do number += 1
  while (existsSync(`/tmp/.X11-unix/X${number}`))
  return `:${number}`
}

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address()
  server.close()
  await once(server, 'close')
  return String(port)
}

async function startDesktop(t) {
  const env = { DISPLAY: freeDisplay(), VNC_RESOLUTION: '1280x800', VNC_PORT: await freePort(), NO_VNC_PORT: await freePort() }
  const { sandbox } = await startSandbox(t, { env })
  return { desktop: sandbox.computerUse, display: env.DISPLAY }
}

test('the desktop is started, asked and stopped', async (t) => {
  const { desktop } = await startDesktop(t)
  assert.equal((await desktop.getStatus()).status, 'inactive')
  const started = await desktop.start()
  assert.equal(started.message, 'Computer use processes started successfully')
  for (const [name, priority] of Object.entries(PROCESSES)) {
    const { pid, ...process } = started.status[name]
    assert.deepEqual(process, { running: true, priority, autoRestart: true })
    assert.ok(existsSync(`/proc/${pid}`))
    assert.equal((await desktop.getProcessStatus(name)).running, true)
  }
  assert.equal((await desktop.getStatus()).status, 'active')
  assert.equal((await desktop.restartProcess('xfce4')).processName, 'xfce4')
  assert.match((await desktop.getProcessLogs('x11vnc')).logs, /PORT=/)
  assert.match((await desktop.getProcessErrors('x11vnc')).errors, /x11vnc version/)
  const stopped = await desktop.stop()
  assert.ok(Object.values(stopped.status).every((process) => process.running === false))
  assert.equal((await desktop.getStatus()).status, 'inactive')
})

test('displays and windows are told', async (t) => {
  const { desktop, display } = await startDesktop(t)
  await desktop.start()
  const { displays } = await desktop.display.getInfo()
  assert.deepEqual(displays, [{ id: 0, x: 0, y: 0, width: 1280, height: 800, isActive: true }])
  const listed = async () => (await desktop.display.getWindows()).windows.filter(({ title }) => title === 'a title')
  assert.deepEqual(await listed(), [])
  const arguments_ = ['-T', 'a title', '-geometry', '40x10+100+50', '-e', 'cat']
  const terminal = spawn('xterm', arguments_, { env: { ...process.env, DISPLAY: display }, stdio: 'ignore' })
  t.after(() => terminal.kill())
  let windows = []
  await until(async () => (windows = await listed()).length > 0)
  assert.ok(Number.isInteger(windows[0].id) && windows[0].x >= 100 && windows[0].width > 100)
})

test('what cannot be done is said in words', async (t) => {
  const { desktop } = await startDesktop(t)
  await assert.rejects(desktop.getProcessStatus('nothing'), DaytonaNotFoundError)
  await assert.rejects(desktop.display.getWindows(), /call start first/)
})
