// Commands, environment and facts of the sandbox, with the TypeScript SDK.

import assert from 'node:assert/strict'
import { existsSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'

import { DaytonaBadRequestError, DaytonaProcessExecutionTimeoutError, DaytonaTimeoutError } from '@daytonaio/sdk'

import { startSandbox } from './support.mjs'

test('output, exit code, directory and environment', async (t) => {
  const { sandbox, work } = await startSandbox(t)
  const run = (...parameters) => sandbox.process.executeCommand(...parameters)
  const response = await run('echo out; echo err >&2; exit 7')
  assert.deepEqual([response.exitCode, response.result], [7, 'out\nerr\n'])
  mkdirSync(join(work, 'sub dir'))
  const there = await run('pwd; echo "$GREETING"', 'sub dir', { GREETING: `a'b"c $d` })
  assert.equal(there.result, `${work}/sub dir\na'b"c $d\n`)
  assert.equal((await run('no-such-command')).exitCode, 127)
  assert.equal((await run('echo ünï·日本')).result, 'ünï·日本\n')
})

test('a slow command is ended in time', async (t) => {
  const { sandbox, work } = await startSandbox(t)
  const slow = sandbox.process.executeCommand('sleep 60; touch late', undefined, undefined, 1)
  const error = await slow.then(() => assert.fail('it ended'), (error) => error)
  assert.ok(error instanceof DaytonaProcessExecutionTimeoutError && error instanceof DaytonaTimeoutError, String(error))
  assert.equal(error.statusCode, 408)
  assert.match(error.message, /timeout/)
  assert.ok(!existsSync(join(work, 'late')))
})

test('bad commands are refused', async (t) => {
  const { sandbox } = await startSandbox(t)
  await assert.rejects(sandbox.process.executeCommand('  '), DaytonaBadRequestError)
  await assert.rejects(sandbox.process.executeCommand('true', undefined, { 'A-B': '1' }), DaytonaBadRequestError)
})

test('the environment of later commands changes', async (t) => {
  const { sandbox } = await startSandbox(t)
  await sandbox.updateEnv({ ADDED: 'yes', GONE: 'soon' })
  await sandbox.updateEnv({ ADDED: 'still' }, { unset: ['GONE'] })
  assert.equal((await sandbox.process.executeCommand('echo $ADDED${GONE-gone}')).result, 'stillgone\n')
})

test('directories and metrics are told', async (t) => {
  const { sandbox, daemon } = await startSandbox(t)
  assert.equal(await sandbox.getWorkDir(), daemon.work)
  assert.equal(await sandbox.getUserHomeDir(), daemon.home)
  const metrics = await sandbox.getMetricsLatest()
  assert.ok(metrics.cpuCount >= 1 && metrics.cpuUsedPct >= 0 && metrics.cpuUsedPct <= 100)
  assert.ok(metrics.memUsed > 0 && metrics.memUsed <= metrics.memTotal)
})
