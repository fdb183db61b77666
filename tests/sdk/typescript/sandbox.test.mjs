// The life of the one sandbox, with the TypeScript SDK.

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { test } from 'node:test'
import { promisify } from 'node:util'

import {
  DaytonaAuthenticationError,
  DaytonaBadRequestError,
  DaytonaNotFoundError,
  SandboxState,
} from '@daytonaio/sdk'

import { all, connect, startDaemon, startSandbox } from './support.mjs'

test('create, get and list give the same sandbox', async (t) => {
  const daemon = await startDaemon(t)
  const client = connect(t, daemon)
  const sandbox = await client.create({
    name: 'mine',
    labels: { team: 'a' },
    envVars: { GREETING: 'hi' },
    public: true,
    autoStopInterval: 7,
    image: 'debian:12',
    resources: { cpu: 4 },
  })
  assert.deepEqual([sandbox.state, sandbox.name, sandbox.public], ['started', 'mine', true])
  assert.equal(sandbox.autoStopInterval, 7)
  assert.match(daemon.log(), /nothing here can honour buildInfo, cpu/)
  assert.equal((await sandbox.process.executeCommand('echo $GREETING')).result, 'hi\n')
  for (const key of [sandbox.id, 'mine']) assert.equal((await client.get(key)).id, sandbox.id)
  const list = async (query) => (await all(client.list(query))).map((one) => one.id)
  assert.deepEqual(await list(), [sandbox.id])
  assert.deepEqual(await list({ labels: { team: 'a' }, states: [SandboxState.STARTED, SandboxState.STOPPED] }), [sandbox.id])
  assert.deepEqual(await list({ labels: { team: 'b' } }), [])
  assert.deepEqual(await list({ states: [SandboxState.STOPPED] }), [])
  await assert.rejects(client.get('other'), DaytonaNotFoundError)
})

test('it stops, starts, is deleted and made again', async (t) => {
  const { client, sandbox } = await startSandbox(t)
  await sandbox.stop()
  assert.equal(sandbox.state, 'stopped')
  await sandbox.waitUntilStopped()
  await sandbox.start()
  await sandbox.waitUntilStarted()
  await sandbox.refreshData()
  assert.equal(sandbox.state, 'started')
  await sandbox.delete(60, true)
  assert.equal(sandbox.state, 'destroyed')
  await assert.rejects(client.get(sandbox.id), DaytonaNotFoundError)
  assert.deepEqual(await all(client.list()), [])
  assert.equal((await client.create()).id, sandbox.id)
})

test('an ephemeral sandbox is gone when it stops', async (t) => {
  const client = connect(t, await startDaemon(t))
  const sandbox = await client.create({ ephemeral: true })
  await sandbox.stop()
  assert.equal(sandbox.state, 'destroyed')
})

test('labels, intervals and flags are kept', async (t) => {
  const { client, sandbox } = await startSandbox(t)
  assert.deepEqual(await sandbox.setLabels({ a: '1' }), { a: '1' })
  await sandbox.setAutostopInterval(5)
  await sandbox.setAutoArchiveInterval(6)
  await sandbox.setAutoDeleteInterval(-1)
  await sandbox.refreshActivity()
  const { labels, autoStopInterval, autoArchiveInterval, autoDeleteInterval } = await client.get(sandbox.id)
  assert.deepEqual({ labels, autoStopInterval, autoArchiveInterval, autoDeleteInterval }, {
    labels: { a: '1' },
    autoStopInterval: 5,
    autoArchiveInterval: 6,
    autoDeleteInterval: -1,
  })
})

test('preview links lead to the proxy', async (t) => {
  const { daemon, sandbox } = await startSandbox(t)
  const link = await sandbox.getPreviewLink(3000)
  assert.deepEqual([link.url, link.sandboxId], [`${daemon.url}/proxy/3000`, sandbox.id])
  const signed = await sandbox.getSignedPreviewUrl(3000, 120)
  assert.ok(signed.url.startsWith(`${daemon.url}/proxy/3000`) && signed.url.includes(signed.token))
  await sandbox.expireSignedPreviewUrl(3000, signed.token)
  await assert.rejects(sandbox.expireSignedPreviewUrl(3000, signed.token), DaytonaNotFoundError)
  await assert.rejects(sandbox.getSignedPreviewUrl(3000, 0.5), DaytonaBadRequestError)
})

test('what needs a platform says so', async (t) => {
  const { client, sandbox } = await startSandbox(t)
  for (const call of [() => sandbox.archive(), () => sandbox.resize({ cpu: 2 }), () => client.volume.list()]) {
    await assert.rejects(call, { statusCode: 501, code: 'NOT_IMPLEMENTED', message: /needs a platform/ })
  }
})

test('the API key is the token where one is wanted', async (t) => {
  const daemon = await startDaemon(t, { env: { TOOLBOXD_TOKEN: 't0ken' } })
  const sandbox = await connect(t, daemon, 't0ken').create()
  assert.equal((await sandbox.process.executeCommand('echo in')).result, 'in\n')
  await assert.rejects(connect(t, daemon, 'other').create(), DaytonaAuthenticationError)
})

test('a program ends when it is done', async (t) => {
  const daemon = await startDaemon(t, { env: { TOOLBOXD_TOKEN: 't0ken' } })
  const program = `
    import { Daytona } from '@daytonaio/sdk'
    const client = new Daytona({ apiUrl: '${daemon.url}/api', apiKey: 't0ken', target: 'local' })
    console.log((await (await client.create()).process.executeCommand('echo done')).result)`
  const cwd = fileURLToPath(new URL('.', import.meta.url))
  const run = await promisify(execFile)(process.execPath, ['--input-type=module', '--eval', program], { cwd, timeout: 30_000 })
  assert.equal(run.stdout.trim(), 'done')
})
