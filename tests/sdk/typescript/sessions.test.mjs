// Every session method and stream of the TypeScript SDK.

import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { EventEmitter, once } from 'node:events'
import { mkdirSync, readFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'

import {
  DaytonaBadRequestError,
  DaytonaCommandAlreadyCompletedError,
  DaytonaConflictError,
  DaytonaNotFoundError,
  DaytonaSessionEndedError,
} from '@daytonaio/sdk'

import { startSandbox, until } from './support.mjs'

/** A session of the daemon, and its methods. */
class Session {
  constructor(process, id) {
    this.process = process
    this.id = id
  }

  static async create(process, id = 'mine') {
    await process.createSession(id)
    return new Session(process, id)
  }

  /** The result of a synchronous command. */
  run = (command) => this.process.executeSessionCommand(this.id, { command })

  /** The id of an asynchronous command. */
  start = async (command, options = {}) =>
    (await this.process.executeSessionCommand(this.id, { command, runAsync: true, ...options })).cmdId

  input = (command, data) => this.process.sendSessionCommandInput(this.id, command, data)
  exitCode = async (command) => (await this.process.getSessionCommand(this.id, command)).exitCode
  ended = (command) => until(async () => (await this.exitCode(command)) !== undefined)
  commands = async () => (await this.process.getSession(this.id)).commands

  /** Both streams, as they are now. */
  logs = async (command) => {
    const { stdout, stderr } = await this.process.getSessionCommandLogs(this.id, command)
    return [stdout, stderr]
  }

  follow = (command) => new Stream((...handlers) => this.process.getSessionCommandLogs(this.id, command, ...handlers))
}

/** A log stream that is read until it ends by itself. */
class Stream {
  #events = new EventEmitter()
  #ended
  #isOver = false
  out = ''
  err = ''

  constructor(read) {
    const take = (name) => (chunk) => {
      this[name] += chunk
      this.#events.emit('chunk')
    }
    this.#ended = read(take('out'), take('err')).finally(() => {
      this.#isOver = true
      this.#events.emit('chunk')
    })
    this.#ended.catch(() => {}) // `whole` tells
  }

  /** Waits for what begins the streams, exactly; they go on. */
  async contains(out, err = '') {
    while (this.out !== out || this.err !== err) {
      assert.ok(out.startsWith(this.out) && err.startsWith(this.err), JSON.stringify([this.out, this.err]))
      assert.ok(!this.#isOver, `the stream has ended: ${JSON.stringify([this.out, this.err])}`)
      await once(this.#events, 'chunk')
    }
    assert.ok(!this.#isOver)
  }

  /** Everything, once the stream has ended. */
  async whole() {
    await this.#ended
    return [this.out, this.err]
  }
}

/** Reached only when something is broken. */
const limited = { timeout: 60_000 }

/** What `startSandbox` gives, and a session of it. */
async function startSession(t, options) {
  const { sandbox, ...rest } = await startSandbox(t, options)
  return { ...rest, sandbox, process: sandbox.process, session: await Session.create(sandbox.process) }
}

/** Shows less than megabytes when it differs. */
const digest = (text) => [text.length, createHash('sha256').update(text).digest('hex')]

const numbers = (count) => Array.from({ length: count }, (_, index) => `${index + 1}\n`).join('')

test('sessions are created, listed, got and deleted', limited, async (t) => {
  const { sandbox: { process } } = await startSandbox(t)
  const listed = async () => (await process.listSessions()).map((session) => session.sessionId)
  assert.deepEqual(await listed(), [])
  for (const id of ['zwei', 'a b/ü?#%41', 'one']) await process.createSession(id)
  assert.deepEqual(await listed(), ['zwei', 'a b/ü?#%41', 'one'])
  assert.deepEqual(await process.getSession('a b/ü?#%41'), { sessionId: 'a b/ü?#%41', commands: [] })
  await process.deleteSession('a b/ü?#%41')
  assert.deepEqual(await listed(), ['zwei', 'one'])
  await process.createSession('a b/ü?#%41') // the id is free again
})

test('a command gives output, streams and exit code', limited, async (t) => {
  const { session } = await startSession(t)
  const response = await session.run('echo out; echo err >&2; (exit 7)')
  assert.deepEqual([response.stdout, response.stderr, response.exitCode], ['out\n', 'err\n', 7])
  assert.ok(['\x01\x01\x01out\n\x02\x02\x02err\n', '\x02\x02\x02err\n\x01\x01\x01out\n'].includes(response.output))
  const silent = await session.run('true')
  assert.deepEqual([silent.output, silent.stdout, silent.stderr, silent.exitCode], ['', '', '', 0])
  assert.equal((await session.run('printf ünï·日本🦀')).stdout, 'ünï·日本🦀')
  assert.equal((await session.run('no-such-command')).exitCode, 127)
})

test('commands are told with their exit codes', limited, async (t) => {
  const { process, session } = await startSession(t)
  const started = await process.executeSessionCommand('mine', { command: 'read line', runAsync: true })
  assert.ok(started.cmdId)
  assert.deepEqual([started.exitCode ?? null, started.stdout, started.stderr], [null, '', ''])
  assert.deepEqual(await process.getSessionCommand('mine', started.cmdId), { id: started.cmdId, command: 'read line' })
  await session.input(started.cmdId, 'go')
  await session.ended(started.cmdId)
  const failed = await session.run('false # why not')
  const told = [
    { id: started.cmdId, command: 'read line', exitCode: 0 },
    { id: failed.cmdId, command: 'false # why not', exitCode: 1 },
  ]
  assert.deepEqual(await session.commands(), told)
  assert.deepEqual(await process.listSessions(), [{ sessionId: 'mine', commands: told }])
})

test('state is kept between commands', limited, async (t) => {
  const { session, work } = await startSession(t)
  mkdirSync(join(work, 'sub'))
  for (const command of ['cd sub', 'export GREETING=hi; plain=kept', 'greet() { echo "$GREETING $1"; }']) {
    assert.equal((await session.run(command)).exitCode, 0)
  }
  const response = await session.run('pwd; greet you; echo $plain; sh -c "echo $GREETING"')
  assert.equal(response.stdout, `${work}/sub\nhi you\nkept\nhi\n`)
  await session.run('(exit 9)')
  assert.equal((await session.run('echo $?')).stdout, '9\n')
})

test('a stream follows both outputs and ends by itself', limited, async (t) => {
  const { session } = await startSession(t)
  const command = await session.start(
    "printf 'ünï·日本 🦀'; read a; echo; echo oops >&2; read b; echo 'last: ünï'; printf 'no newline' >&2",
    { suppressInputEcho: true },
  )
  const stream = session.follow(command)
  await stream.contains('ünï·日本 🦀') // a part of a line, while the command waits
  assert.deepEqual(await session.logs(command), ['ünï·日本 🦀', ''])
  assert.equal(await session.exitCode(command), undefined)
  await session.input(command, 'go on')
  await stream.contains('ünï·日本 🦀\n', 'oops\n')
  await session.input(command, 'go on')
  const whole = ['ünï·日本 🦀\nlast: ünï\n', 'oops\nno newline']
  assert.deepEqual(await stream.whole(), whole)
  assert.deepEqual(await session.logs(command), whole)
  assert.deepEqual(await session.follow(command).whole(), whole) // once more, after its end
})

test('characters are whole however they are written', limited, async (t) => {
  const { session } = await startSession(t)
  // Byte by byte, so that a character arrives in pieces.
  const script = "import os\nfor byte in 'ünï·日本🦀'.encode() * 50: os.write(1, bytes([byte]))"
  const command = await session.start(`python3 -c "${script}"`)
  assert.deepEqual(await session.follow(command).whole(), ['ünï·日本🦀'.repeat(50), ''])
})

test('several megabytes arrive exactly', limited, async (t) => {
  const { session } = await startSession(t)
  const expected = digest(numbers(500_000))
  assert.ok(expected[0] > 3_000_000)
  const command = await session.start('seq 1 500000; seq 1 500000 >&2')
  assert.deepEqual((await session.follow(command).whole()).map(digest), [expected, expected])
  assert.deepEqual((await session.logs(command)).map(digest), [expected, expected])
  assert.deepEqual(digest((await session.run('seq 1 500000')).stdout), expected)
})

test('input answers prompts, and is echoed unless that is suppressed', limited, async (t) => {
  const { session } = await startSession(t)
  const asked = await session.start(`printf 'name? '; read name; printf 'age? '; read age; echo "$name is $age"`)
  const stream = session.follow(asked)
  await stream.contains('name? ')
  await session.input(asked, 'Ada ünï')
  await stream.contains('name? Ada ünï\nage? ')
  await session.input(asked, '36\n') // has its newline
  assert.deepEqual(await stream.whole(), ['name? Ada ünï\nage? 36\nAda ünï is 36\n', ''])

  const secret = await session.start("printf 'password: '; read word; echo ${#word}", { suppressInputEcho: true })
  await session.input(secret, 'secret') // before the prompt, too
  assert.deepEqual(await session.follow(secret).whole(), ['password: 6\n', ''])
})

test('input can be sent before the turn of its command', limited, async (t) => {
  const { session } = await startSession(t)
  const first = await session.start('read line; echo first $line', { suppressInputEcho: true })
  const second = await session.start('read line; echo second $line', { suppressInputEcho: true })
  await session.input(second, 'two')
  await session.input(first, 'one')
  assert.deepEqual(await session.follow(second).whole(), ['second two\n', ''])
  assert.deepEqual(await session.logs(first), ['first one\n', ''])
})

test('a command that has ended takes no input', limited, async (t) => {
  const { session } = await startSession(t)
  const command = await session.start('true')
  await session.ended(command)
  for (const id of [command, (await session.run('true')).cmdId]) {
    await assert.rejects(session.input(id, 'late'), (error) => {
      assert.ok(error instanceof DaytonaCommandAlreadyCompletedError, String(error))
      assert.deepEqual([error.statusCode, error.code], [410, 'COMMAND_ALREADY_COMPLETED'])
      return true
    })
  }
})

test('a shell that ends is told and stays readable', limited, async (t) => {
  const { process } = await startSession(t)
  for (const [text, code] of [['exit 3', 3], ['exec false', 1], ['set -e; false; echo no', 1], ['kill -9 $$', 137]]) {
    const session = await Session.create(process, text)
    const { stdout, exitCode, cmdId } = await session.run(`echo last; ${text}`)
    assert.deepEqual([stdout, exitCode], ['last\n', code])
    for (const call of [() => session.run('echo more'), () => session.start('echo more')]) {
      const error = await call().then(() => assert.fail('it ran'), (error) => error)
      assert.ok(error instanceof DaytonaSessionEndedError, String(error))
      assert.deepEqual([error.statusCode, error.code], [410, 'SESSION_ENDED'])
    }
    assert.deepEqual(await session.logs(cmdId), ['last\n', ''])
    assert.deepEqual((await session.commands()).map((command) => command.exitCode), [code])
    await process.deleteSession(text)
  }
})

test('what is unknown is said to be', limited, async (t) => {
  const { process, session } = await startSession(t)
  const command = (await session.run('true')).cmdId
  const other = new Session(process, 'other')
  for (const call of [
    () => other.commands(),
    () => process.deleteSession('other'),
    () => other.run('true'),
    () => other.start('true'),
    () => other.exitCode(command),
    () => other.logs(command),
    () => other.input(command, 'x'),
    () => session.exitCode('missing'),
    () => session.logs('missing'),
    () => session.input('missing', 'x'),
  ]) {
    const error = await call().then(() => assert.fail('it was found'), (error) => error)
    assert.ok(error instanceof DaytonaNotFoundError, `${call}: ${error}`)
    assert.deepEqual([error.statusCode, error.code], [404, 'NOT_FOUND'])
  }
  // A refused WebSocket is not sorted by the SDK.
  await assert.rejects(other.follow(command).whole(), { message: /404/ })
  await assert.rejects(session.follow('missing').whole(), { message: /404/ })
})

test('ids and commands are checked', limited, async (t) => {
  const { process, session } = await startSession(t)
  await assert.rejects(process.createSession('mine'), DaytonaConflictError)
  for (const id of ['', 'entrypoint', 'x'.repeat(257)]) await assert.rejects(process.createSession(id), DaytonaBadRequestError)
  for (const command of ['', '  \n']) await assert.rejects(session.run(command), DaytonaBadRequestError)
  assert.deepEqual(await session.commands(), [])
})

test('deleting a running session ends its processes, calls and streams', limited, async (t) => {
  const { process, session } = await startSession(t)
  const stream = session.follow(await session.start('echo $$; sleep 1000 & echo $!; wait'))
  await until(() => stream.out.split('\n').length > 2)
  const queued = session.run('echo never').then(() => assert.fail('it ran'), (error) => error)
  await until(async () => (await session.commands()).length === 2)
  await process.deleteSession('mine')
  for (const pid of stream.out.trim().split('\n')) assert.ok(!isRunning(pid), pid)
  await stream.whole()
  assert.ok((await queued) instanceof DaytonaSessionEndedError)
  await assert.rejects(session.commands(), DaytonaNotFoundError)
  assert.equal((await (await Session.create(process)).run('echo anew')).stdout, 'anew\n')
})

/** Whether it still runs; one that has ended may be there until init looks. */
function isRunning(pid) {
  try {
    return !/^[^)]*\) [ZX]/.test(readFileSync(`/proc/${pid}/stat`, 'utf8'))
  } catch {
    return false
  }
}

test('sessions run beside each other', limited, async (t) => {
  const { process, session: one } = await startSession(t)
  const two = await Session.create(process, 'two')
  await one.run('mkfifo there back; where=one')
  await two.run('where=two')
  // Each waits for what the other does.
  const both = await Promise.all([one.run('echo from $where > there; cat back'), two.run('cat there; echo from $where > back')])
  assert.deepEqual(both.map((response) => response.stdout), ['from two\n', 'from one\n'])
})

test('twenty streams at once get everything', limited, async (t) => {
  const { session } = await startSession(t)
  const command = await session.start('echo ready; read line; seq 1 20000; seq 1 20000 >&2; echo done', {
    suppressInputEcho: true,
  })
  const streams = Array.from({ length: 20 }, () => session.follow(command))
  await Promise.all(streams.map((stream) => stream.contains('ready\n')))
  await session.input(command, 'go')
  const expected = [`ready\n${numbers(20_000)}done\n`, numbers(20_000)].map(digest)
  for (const stream of streams) assert.deepEqual((await stream.whole()).map(digest), expected)
})

test("a finished command's stream is whole every time", limited, async (t) => {
  // All of it, and the close, may arrive together with the answer to the handshake.
  const { session } = await startSession(t)
  const { cmdId } = await session.run('echo out; echo err >&2')
  for (let round = 0; round < 50; round++) assert.deepEqual(await session.follow(cmdId).whole(), ['out\n', 'err\n'])
})

test('the entrypoint is a session with logs', limited, async (t) => {
  const command = ['sh', '-c', "mkfifo go; printf 'ready? '; echo err >&2; cat go; echo 'ünï done'; exit 4"]
  const { sandbox: { process }, work } = await startSandbox(t, { command })
  const stream = new Stream((...handlers) => process.getEntrypointLogs(...handlers))
  await stream.contains('ready? ', 'err\n')
  const { sessionId, commands } = await process.getEntrypointSession()
  assert.deepEqual([sessionId, commands.length, commands[0].id, commands[0].exitCode], ['entrypoint', 1, 'entrypoint_command', undefined])
  assert.ok(commands[0].command.startsWith("'sh' '-c' 'mkfifo go;"))
  const logs = await process.getEntrypointLogs()
  assert.deepEqual([logs.stdout, logs.stderr], ['ready? ', 'err\n'])
  await writeFile(join(work, 'go'), 'yes\n')
  const whole = ['ready? yes\nünï done\n', 'err\n']
  assert.deepEqual(await stream.whole(), whole)
  await until(async () => (await process.getEntrypointSession()).commands[0].exitCode === 4)
  // By its names, as any other; and closed to all else.
  const session = new Session(process, 'entrypoint')
  assert.deepEqual(await session.logs('entrypoint_command'), whole)
  assert.deepEqual(await session.follow('entrypoint_command').whole(), whole)
  assert.deepEqual(await process.listSessions(), [])
  await assert.rejects(session.run('true'), DaytonaBadRequestError)
  await assert.rejects(session.input('entrypoint_command', 'x'), DaytonaBadRequestError)
  await assert.rejects(process.deleteSession('entrypoint'), DaytonaBadRequestError)
})

test('without a command the entrypoint is idle', limited, async (t) => {
  const { sandbox: { process } } = await startSandbox(t)
  const { commands } = await process.getEntrypointSession()
  assert.deepEqual(commands, [{ id: 'entrypoint_command', command: '', exitCode: 0 }])
  assert.deepEqual(await process.getEntrypointLogs(), { output: '', stdout: '', stderr: '' })
  assert.deepEqual(await new Stream((...handlers) => process.getEntrypointLogs(...handlers)).whole(), ['', ''])
})
