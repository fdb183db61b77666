// Every PTY method of the TypeScript SDK.

import assert from 'node:assert/strict'
import { EventEmitter, once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'

import { DaytonaNotFoundError } from '@daytonaio/sdk'

import { startSandbox } from './support.mjs'

const PROMPT = 'prompt> '

/** A handle, and what its terminal has shown. */
class Terminal {
  #events = new EventEmitter()
  #bytes = []
  /** Where to go on looking. */
  #seen = 0

  static async create(process, id, options = {}) {
    const terminal = new Terminal()
    terminal.handle = await process.createPty({ id, onData: terminal.#show, ...options })
    await terminal.handle.waitForConnection()
    return terminal
  }

  static async connect(process, id) {
    const terminal = new Terminal()
    terminal.handle = await process.connectPty(id, { onData: terminal.#show })
    await terminal.handle.waitForConnection()
    return terminal
  }

  #show = (data) => {
    this.#bytes.push(Buffer.from(data))
    this.#events.emit('data')
  }

  text = () => Buffer.concat(this.#bytes).toString()

  /** Waits until this is shown, after what was waited for before. */
  async shows(text) {
    for (;;) {
      const at = this.text().indexOf(text, this.#seen)
      if (at >= 0) {
        this.#seen = at + text.length
        return
      }
      await once(this.#events, 'data')
    }
  }

  prompt = () => this.shows(PROMPT)
  send = (data) => this.handle.sendInput(data)

  /** Runs a command that shows the line, until the shell is ready for the next. */
  async run(command, line) {
    await this.send(command + '\n')
    await this.shows(`\n${line}\r\n`)
    await this.prompt()
  }

  async ended() {
    const { exitCode, error } = await this.handle.wait()
    return [exitCode, error]
  }
}

/** Reached only when something is broken. */
const limited = { timeout: 60_000 }

/** What `startSandbox` gives; whichever shell the machine prefers, it is plain, and asks new users nothing. */
async function startProcess(t) {
  const { daemon, sandbox, ...rest } = await startSandbox(t)
  writeFileSync(join(daemon.home, '.zshrc'), `unsetopt zle prompt_sp prompt_cr\nPS1='${PROMPT}'\n`)
  writeFileSync(join(daemon.home, '.bash_profile'), `bind 'set enable-bracketed-paste off'\nPS1='${PROMPT}'\n`)
  return { ...rest, process: sandbox.process }
}

const ids = async (process) => (await process.listPtySessions()).map(({ id }) => id)

test('terminals are created, listed, got, resized and killed', limited, async (t) => {
  const { process, work } = await startProcess(t)
  const first = await Terminal.create(process, 'first', { cols: 100, rows: 30 })
  const second = await Terminal.create(process, 'zwei ü?#%', { cwd: '/', envs: { GREETING: 'ünï 日本' } })
  assert.deepEqual(await ids(process), ['first', 'zwei ü?#%'])
  const { createdAt, ...info } = await process.getPtySessionInfo('first')
  const envs = { TERM: 'xterm-256color' }
  assert.deepEqual(info, { id: 'first', cwd: work, envs, cols: 100, rows: 30, active: true, lazyStart: false })
  assert.ok(Date.now() - new Date(createdAt) < 60_000)
  await first.prompt()
  await first.run('stty size', '30 100')
  assert.equal((await first.handle.resize(120, 40)).cols, 120)
  await first.run('stty size', '40 120')
  assert.equal((await process.resizePtySession('first', 90, 20)).rows, 20)
  await second.prompt()
  await second.run('echo "$GREETING $PWD $TERM"', 'ünï 日本 / xterm-256color')
  await second.handle.kill()
  assert.deepEqual(await second.ended(), [137, 'SIGKILL'])
  assert.deepEqual(await ids(process), ['first'])
  await process.killPtySession('first')
  assert.deepEqual(await first.ended(), [137, 'SIGKILL'])
  assert.deepEqual(await ids(process), [])
})

test('the exit code is told after the last words', limited, async (t) => {
  const { process } = await startProcess(t)
  for (const [code, error] of [
    [0, undefined],
    [3, 'non-zero exit'],
    [130, 'Ctrl+C'],
  ]) {
    const terminal = await Terminal.create(process, 'mine') // the id is free again
    await terminal.prompt()
    await terminal.send(`echo last words; exit ${code}\n`)
    assert.deepEqual(await terminal.ended(), [code, error])
    assert.ok(terminal.text().includes('\nlast words\r\n'), terminal.text())
    assert.ok(!terminal.handle.isConnected())
  }
})

test('what cannot be is refused', limited, async (t) => {
  const { process } = await startProcess(t)
  await Terminal.create(process, 'mine')
  await assert.rejects(Terminal.create(process, 'mine'))
  await assert.rejects(Terminal.create(process, 'large', { cols: 1001 }))
  await assert.rejects(Terminal.create(process, 'lost', { cwd: '/no/such' }), /chdir \/no\/such: no such file/)
  await assert.rejects(Terminal.connect(process, 'missing'), /PTY session missing not found/)
  await assert.rejects(process.getPtySessionInfo('missing'), DaytonaNotFoundError)
  await assert.rejects(process.killPtySession('missing'), DaytonaNotFoundError)
  await assert.rejects(process.resizePtySession('missing', 80, 24), /PTY session missing not found/)
  assert.deepEqual(await ids(process), ['mine'])
})

test('two handles share a terminal that outlives them', limited, async (t) => {
  const { process } = await startProcess(t)
  const one = await Terminal.create(process, 'shared')
  await one.prompt()
  const two = await Terminal.connect(process, 'shared')
  await two.run('name=wörld; echo "hello $name"', 'hello wörld')
  await one.shows('\nhello wörld\r\n')
  await one.handle.disconnect()
  await two.run('echo still here', 'still here')
  await two.handle.disconnect()
  const three = await Terminal.connect(process, 'shared')
  await three.send(new TextEncoder().encode('echo "again $name"; exit 5\n'))
  assert.deepEqual(await three.ended(), [5, 'non-zero exit'])
  assert.ok(three.text().includes('\nagain wörld\r\n'))
})

test('unicode passes both ways, however it is cut', limited, async (t) => {
  const { process } = await startProcess(t)
  const terminal = await Terminal.create(process, 'mine')
  await terminal.prompt()
  await terminal.send('stty -echo; cat\n')
  await terminal.shows('cat\r\n')
  const text = 'ünï·日本🦀 é'
  for (const byte of Buffer.from(text)) await terminal.send(Buffer.from([byte]))
  await terminal.send(`\n${text}\n`)
  await terminal.shows(`${text}\r\n`)
  await terminal.shows(`${text}\r\n`)
})

test('several megabytes arrive exactly', limited, async (t) => {
  const { process } = await startProcess(t)
  const terminal = await Terminal.create(process, 'mine')
  await terminal.prompt()
  await terminal.send('stty -opost; PS1=; seq 1 500000; exit\n')
  assert.equal((await terminal.ended())[0], 0)
  const expected = Array.from({ length: 500_000 }, (_, index) => `${index + 1}\n`).join('')
  assert.ok(terminal.text().includes(expected))
})

test('jobs are interrupted, stopped and brought back', limited, async (t) => {
  const { process } = await startProcess(t)
  const terminal = await Terminal.create(process, 'mine')
  await terminal.prompt()
  await terminal.send("sh -c 'echo running; exec sleep 1000'\n")
  await terminal.shows('\nrunning\r\n')
  await terminal.send('\x03')
  await terminal.prompt()
  await terminal.run('echo "code $?"', 'code 130')
  await terminal.send("sh -c 'echo again; exec cat'\n")
  await terminal.shows('\nagain\r\n')
  await terminal.send('\x1a')
  await terminal.prompt()
  await terminal.run("jobs > jobs; grep -ci -e stopped -e suspended jobs | sed 's/^/jobs: /'", 'jobs: 1')
  await terminal.send('fg\n')
  await terminal.shows("exec cat'\r\n") // both shells name the job, before it is in front
  await terminal.send('back\n')
  await terminal.shows('back\r\nback\r\n') // typed, and read by who is in front again
  await terminal.send('\x03')
  await terminal.prompt()
  await terminal.run('echo "code $?" again', 'code 130 again')
})

test('vim draws at the size and edits', limited, async (t) => {
  const { process, work } = await startProcess(t)
  const file = join(work, 'text')
  writeFileSync(file, Array.from({ length: 100 }, (_, index) => `line ${index + 1}\n`).join(''))
  const terminal = await Terminal.create(process, 'mine', { cols: 70, rows: 20 })
  await terminal.prompt()
  await terminal.send('vim.tiny -u NONE -N text\r')
  await terminal.shows('\x1b[20;1H"text" 100') // what it says is in the last row
  await terminal.shows('line 19')
  assert.ok(!terminal.text().includes('line 20'))
  await terminal.handle.resize(50, 30)
  await terminal.shows('line 29')
  await terminal.send('ggcwfirst ünï\x1b:wq\r')
  await terminal.prompt()
  assert.ok(readFileSync(file, 'utf8').startsWith('first ünï 1\nline 2\n'))
})

test('top draws as many rows as there are', limited, async (t) => {
  const { process } = await startProcess(t)
  const terminal = await Terminal.create(process, 'mine', { cols: 90, rows: 12 })
  await terminal.prompt()
  await terminal.send('top\n')
  await terminal.shows('PID')
  await terminal.send('q')
  await terminal.prompt()
  const drawn = terminal.text().split('top - ')[1].split('\x1b[?1l')[0] // up to its leaving
  assert.equal(drawn.split('\r\n').length, 12, JSON.stringify(drawn))
})
