// Programs, charts and the interpreter, with the TypeScript SDK.

import assert from 'node:assert/strict'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'

import { DaytonaProcessExecutionTimeoutError, DaytonaTimeoutError } from '@daytonaio/sdk'

import { connect, startDaemon, startSandbox } from './support.mjs'

const ARGV = ['a b', '', '$HOME', `'"`, '*', 'é\n;']
const SHOW = {
  python: 'import json, os, sys\nprint(json.dumps([sys.argv[1:], os.environ["GREETING"]]))',
  javascript: 'console.log(JSON.stringify([process.argv.slice(1), process.env.GREETING]))',
  typescript: 'const argv: string[] = process.argv.slice(1)\nconsole.log(JSON.stringify([argv, process.env.GREETING]))',
}

for (const [language, code] of Object.entries(SHOW)) {
  test(`${language} gets its arguments and environment as they are`, async (t) => {
    const client = connect(t, await startDaemon(t))
    const sandbox = await client.create({ language })
    const response = await sandbox.process.codeRun(code, { argv: ARGV, env: { GREETING: `h'i $x` } })
    assert.equal(response.exitCode, 0, response.result)
    assert.deepEqual(JSON.parse(response.result), [ARGV, `h'i $x`])
  })
}

test('charts come beside the output', async (t) => {
  const { sandbox } = await startSandbox(t)
  const code = `
import matplotlib.pyplot as plt
plt.plot([1, 2], [3, 4]); plt.title("one"); plt.show()
figure, (left, right) = plt.subplots(1, 2)
left.bar(["a"], [2.5]); right.pie([1, 3], labels=["x", "y"]); plt.show()
print("done")`
  const response = await sandbox.process.codeRun(code)
  assert.deepEqual([response.exitCode, response.result], [0, 'done\n'])
  const [line, composite] = response.artifacts.charts
  assert.deepEqual([line.type, line.title, line.elements[0].points], ['line', 'one', [[1, 3], [2, 4]]])
  assert.match(line.png, /^iVBOR/)
  const [left, right] = composite.elements
  assert.deepEqual([composite.type, left.type, right.type], ['composite_chart', 'bar', 'pie'])
  assert.equal(left.elements[0].value, '2.5')
  assert.deepEqual(right.elements.map((part) => part.angle), [90, 270])
})

test('a slow program is ended in time', async (t) => {
  const { sandbox } = await startSandbox(t)
  await assert.rejects(sandbox.process.codeRun('while True: pass', undefined, 1), DaytonaProcessExecutionTimeoutError)
})

test('the interpreter keeps its state, tells what is printed, and what fails', async (t) => {
  const { sandbox } = await startSandbox(t)
  const { codeInterpreter } = sandbox
  const [out, err, errors] = [[], [], []]
  const result = await codeInterpreter.runCode('import sys\nx = 5\nprint("one")\nprint("bad", file=sys.stderr)\n1/0', {
    onStdout: (message) => out.push(message.output),
    onStderr: (message) => err.push(message.output),
    onError: (error) => errors.push(error.name),
  })
  assert.deepEqual([result.stdout, result.stderr, result.error?.name], ['one\n', 'bad\n', 'ZeroDivisionError'])
  assert.deepEqual([out.join(''), err.join(''), errors], ['one\n', 'bad\n', ['ZeroDivisionError']])
  assert.match(result.error.traceback, /File "<stdin>", line 5/)
  assert.equal((await codeInterpreter.runCode('print(x)')).stdout, '5\n')
})

test('contexts have their own directory and names', async (t) => {
  const { sandbox, work } = await startSandbox(t)
  const { codeInterpreter } = sandbox
  mkdirSync(join(work, 'sub'))
  const context = await codeInterpreter.createContext(join(work, 'sub'))
  const [first, second] = await Promise.all([
    codeInterpreter.runCode('import os; x = 1; print(os.getcwd())', { context }),
    codeInterpreter.runCode('print("x" in globals())'),
  ])
  assert.deepEqual([first.stdout, second.stdout], [`${work}/sub\n`, 'False\n'])
  assert.deepEqual((await codeInterpreter.listContexts()).map(({ id, active }) => [id, active]), [[context.id, true]])
  await codeInterpreter.deleteContext(context)
  assert.deepEqual(await codeInterpreter.listContexts(), [])
})

test('a slow run is a timeout, and the next one goes on', async (t) => {
  const { sandbox } = await startSandbox(t)
  const { codeInterpreter } = sandbox
  await codeInterpreter.runCode('x = 5')
  await assert.rejects(codeInterpreter.runCode('while True: pass', { timeout: 1 }), DaytonaTimeoutError)
  assert.equal((await codeInterpreter.runCode('print(x)')).stdout, '5\n')
})

test('ten megabytes arrive, and a worker that dies is an error', async (t) => {
  const { sandbox } = await startSandbox(t)
  const { codeInterpreter } = sandbox
  const { stdout } = await codeInterpreter.runCode('for n in range(100000): print(f"{n:099}")')
  assert.equal(stdout.length, 10_000_000)
  await assert.rejects(codeInterpreter.runCode('import os; os._exit(3)'), /worker process ended/)
  const again = await codeInterpreter.runCode('print("again")')
  assert.match(again.stderr, /exited with code 3/)
})
