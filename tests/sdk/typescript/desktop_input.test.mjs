// Mouse, keyboard and pictures of the desktop, with the TypeScript SDK. A terminal on a display of the test's own keeps
// what is typed, and xev prints what its window gets.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { test } from 'node:test'

import { DaytonaBadRequestError } from '@daytonaio/sdk'

import { startSandbox, until } from './support.mjs'

/** A display of that size and depth, for as long as the test runs. */
async function startDisplay(t, screen) {
  const options = ['-displayfd', '3', '-screen', '0', screen, '-noreset', '-nolisten', 'tcp']
  const server = spawn('Xvfb', options, { stdio: ['ignore', 'ignore', 'ignore', 'pipe'] })
  t.after(() => server.kill('SIGKILL'))
  for await (const line of createInterface({ input: server.stdio[3] })) return `:${line}`
  throw new Error('Xvfb did not start')
}

/** A daemon on a display, and its computer. */
async function startComputer(t, env = {}) {
  const display = await startDisplay(t, '800x600x24')
  const { sandbox } = await startSandbox(t, { env: { DISPLAY: display, ...env } })
  return { display, computer: sandbox.computerUse }
}

/** The lines that xev prints; its window is at 100,100 and has 400 by 300 pixels. */
async function startWindow(t, display) {
  const arguments_ = ['-oL', 'xev', '-geometry', '400x300+100+100']
  const child = spawn('stdbuf', arguments_, { env: { ...process.env, DISPLAY: display }, stdio: ['ignore', 'pipe', 'ignore'] })
  t.after(() => child.kill('SIGKILL'))
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const next = async (wanted) => {
    for (;;) {
      const { value, done } = await lines.next()
      assert.ok(!done, 'xev has ended')
      if (wanted.test(value)) return value
    }
  }
  await next(/^Expose/)
  return {
    /** The place of the next event of that name. */
    async at(name) {
      await next(new RegExp(`^${name} event`))
      const [, x, y] = (await next(/root:\(/)).match(/root:\((-?\d+),(-?\d+)\)/)
      return [Number(x), Number(y)]
    },
    /** Its button or key, after `at`. */
    async detail() {
      const line = await next(/button \d+|keysym/)
      return line.match(/button (\d+)/)?.[1] ?? line.match(/keysym 0x\w+, (\w+)/)[1]
    },
  }
}

/** Size of a PNG. */
function sizeOf(shot) {
  const file = Buffer.from(shot.screenshot, 'base64')
  assert.equal(file.length, shot.sizeBytes)
  assert.equal(file.toString('latin1', 1, 4), 'PNG')
  return [file.readUInt32BE(16), file.readUInt32BE(20)]
}

test('the pointer moves, clicks, drags and scrolls', async (t) => {
  const { display, computer } = await startComputer(t)
  const window = await startWindow(t, display)
  const { mouse } = computer
  assert.deepEqual(await mouse.move(150, 250), { x: 150, y: 250 })
  assert.deepEqual(await mouse.getPosition(), { x: 150, y: 250 })
  assert.deepEqual(await mouse.move(99999, -5), { x: 799, y: 0 })
  assert.deepEqual(await mouse.click(123, 145, 'right'), { x: 123, y: 145 })
  assert.deepEqual(await window.at('ButtonPress'), [123, 145])
  assert.equal(await window.detail(), '3')
  await mouse.click(200, 210, 'left', true)
  for (let click = 0; click < 2; click += 1) assert.deepEqual(await window.at('ButtonPress'), [200, 210])
  assert.deepEqual(await mouse.drag(150, 150, 350, 250), { x: 350, y: 250 })
  assert.deepEqual(await window.at('ButtonPress'), [150, 150])
  const [x] = await window.at('MotionNotify')
  assert.ok(x > 150 && x < 350)
  assert.deepEqual(await window.at('ButtonRelease'), [350, 250])
  assert.equal(await mouse.scroll(200, 200, 'down', 2), true)
  for (let notch = 0; notch < 2; notch += 1) {
    assert.deepEqual(await window.at('ButtonPress'), [200, 200])
    assert.equal(await window.detail(), '5')
  }
})

test('keys and chords are pressed', async (t) => {
  const { display, computer } = await startComputer(t)
  const window = await startWindow(t, display)
  await computer.mouse.move(200, 200)
  await computer.keyboard.press('Return')
  await computer.keyboard.press('c', ['ctrl'])
  await computer.keyboard.hotkey('alt+f4')
  for (const key of ['Return', 'Control_L', 'c', 'Alt_L', 'F4']) {
    await window.at('KeyPress')
    assert.equal(await window.detail(), key)
  }
})

test('what is typed arrives', async (t) => {
  const { display, computer } = await startComputer(t)
  const directory = mkdtempSync(join(tmpdir(), 'toolboxd-typing-'))
  t.after(() => rmSync(directory, { recursive: true, force: true }))
  const script = 'stty raw -echo; touch ready; exec cat > typed'
  const env = { ...process.env, DISPLAY: display, LC_ALL: 'C.UTF-8' }
  const terminal = spawn('xterm', ['-u8', '-geometry', '80x24+0+0', '-e', 'sh', '-c', script], { cwd: directory, env })
  t.after(() => terminal.kill('SIGKILL'))
  await computer.mouse.move(60, 60)
  await until(() => existsSync(join(directory, 'ready')))
  const ascii = Array.from({ length: 95 }, (_, index) => String.fromCharCode(32 + index)).join('')
  const text = `héllo 世界 🙂\n${ascii}\n`
  await computer.keyboard.type(text)
  await computer.keyboard.type('end\n', 5)
  const expected = `${text}end\n`.replaceAll('\n', '\r')
  const typed = () => readFileSync(join(directory, 'typed'), 'utf8')
  await until(() => Buffer.byteLength(typed()) >= Buffer.byteLength(expected))
  assert.equal(typed(), expected)
})

test('pictures have the size and the format asked for', async (t) => {
  const { computer } = await startComputer(t, { TOOLBOXD_FIX_SWAPPED_REGIONS: 'true' })
  const { screenshot } = computer
  await computer.mouse.move(400, 300)
  const full = await screenshot.takeFullScreen(true)
  assert.deepEqual(sizeOf(full), [800, 600])
  assert.deepEqual(full.cursorPosition, { x: 400, y: 300 })
  const region = { x: 100, y: 50, width: 300, height: 200 }
  // This SDK sends them in another order; the daemon was told to put that right.
  assert.deepEqual(sizeOf(await screenshot.takeRegion(region)), [300, 200])
  assert.deepEqual(sizeOf(await screenshot.takeCompressed({ format: 'png', scale: 0.5 })), [400, 300])
  assert.deepEqual(sizeOf(await screenshot.takeCompressedRegion(region, { scale: 0.5, showCursor: true })), [150, 100])
  const jpeg = await screenshot.takeCompressed({ format: 'jpeg', quality: 80 })
  assert.equal(Buffer.from(jpeg.screenshot, 'base64').readUInt16BE(0), 0xffd8)
  const webp = await screenshot.takeCompressed({ format: 'webp' })
  assert.equal(Buffer.from(webp.screenshot, 'base64').toString('latin1', 8, 12), 'WEBP')
})

test('bad requests are refused', async (t) => {
  const { computer } = await startComputer(t)
  await assert.rejects(computer.mouse.click(1, 1, 'wheel'), DaytonaBadRequestError)
  await assert.rejects(computer.keyboard.press('FooBar'), DaytonaBadRequestError)
  await assert.rejects(computer.keyboard.hotkey('ctrl++c'), DaytonaBadRequestError)
  await assert.rejects(computer.keyboard.type('a\tb'), DaytonaBadRequestError)
  await assert.rejects(computer.screenshot.takeCompressed({ quality: 0 }), DaytonaBadRequestError)
})
