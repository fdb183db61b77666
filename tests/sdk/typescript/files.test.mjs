// Every file method of the TypeScript SDK.

import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join, relative } from 'node:path'
import { Readable } from 'node:stream'
import { test } from 'node:test'

import {
  DaytonaBadRequestError,
  DaytonaConflictError,
  DaytonaFileAccessDeniedError,
  DaytonaFileNotFoundError,
  DaytonaInvalidFilePathError,
  DaytonaNotFoundError,
} from '@daytonaio/sdk'

import { NOBODY, all, startSandbox } from './support.mjs'

// Names that survive only when nobody re-encodes or normalises them.
const NAMES = ['plain.txt', 'with space', 'plus+sign', 'per%25cent', 'q?&=#', 'ünï·日本', "quote'\\", 'semi;colon']

/** A local directory of the test's own. */
function local(t) {
  const directory = mkdtempSync(join(tmpdir(), 'toolboxd-local-'))
  t.after(() => rmSync(directory, { recursive: true }))
  return directory
}

test('list gives names in byte order and all facts', async (t) => {
  const { fs, work } = await startSandbox(t)
  mkdirSync(join(work, 'b'))
  for (const name of ['.hidden', 'Z', 'a.txt']) writeFileSync(join(work, name), 'hello')
  chmodSync(join(work, 'a.txt'), 0o640)
  const listed = await fs.listFiles('.')
  assert.deepEqual(listed.map((entry) => entry.name), ['.hidden', 'Z', 'a.txt', 'b'])
  const { size, isDir, permissions, mode, path, owner } = listed[2]
  assert.deepEqual({ size, isDir, permissions, mode }, { size: 5, isDir: false, permissions: '0640', mode: '-rw-r-----' })
  assert.deepEqual([path, owner], [join(work, 'a.txt'), String(process.getuid())])
  assert.equal(listed[3].isDir, true)
})

test('list goes as deep as it is told', async (t) => {
  const { fs, work } = await startSandbox(t)
  mkdirSync(join(work, 'a/b'), { recursive: true })
  writeFileSync(join(work, 'a/b/c'), '')
  const listed = async (depth) => (await fs.listFiles('.', { depth })).map((entry) => relative(work, entry.path))
  assert.deepEqual(await listed(1), ['a'])
  assert.deepEqual(await listed(2), ['a', 'a/b'])
  assert.deepEqual(await listed(3), ['a', 'a/b', 'a/b/c'])
})

test('info tells of files and links', async (t) => {
  const { fs, work } = await startSandbox(t)
  writeFileSync(join(work, 'file'), '12345')
  symlinkSync('file', join(work, 'link'))
  const link = await fs.getFileDetails('link')
  assert.deepEqual([link.name, link.size, link.isDir], ['link', 5, false])
  assert.ok(Math.abs(new Date(link.modifiedAt) - Date.now()) < 60_000)
})

test('folders, moves and deletes', async (t) => {
  const { fs, work } = await startSandbox(t)
  await fs.createFolder('one/two', '700')
  assert.equal(statSync(join(work, 'one/two')).mode & 0o777, 0o700)
  writeFileSync(join(work, 'a'), 'a')
  await fs.moveFiles('a', 'one/b')
  assert.equal(readFileSync(join(work, 'one/b'), 'utf8'), 'a')
  writeFileSync(join(work, 'a'), 'other')
  await assert.rejects(fs.moveFiles('a', 'one/b'), DaytonaConflictError)
  await fs.deleteFile('a')
  await assert.rejects(fs.deleteFile('one'), DaytonaBadRequestError)
  await fs.deleteFile('one', true)
  assert.deepEqual(readdirSync(work), [])
})

test('mode, owner and group are set', async (t) => {
  const { fs, work } = await startSandbox(t)
  writeFileSync(join(work, 'a'), '')
  await fs.setFilePermissions('a', { mode: '600' })
  assert.equal(statSync(join(work, 'a')).mode & 0o777, 0o600)
  if (process.getuid() === 0) {
    await fs.setFilePermissions('a', { owner: 'nobody', group: String(NOBODY) })
    const { uid, gid } = statSync(join(work, 'a'))
    assert.deepEqual([uid, gid], [NOBODY, NOBODY])
  }
  await assert.rejects(fs.setFilePermissions('a', { owner: 'no-such-user' }), DaytonaBadRequestError)
})

test('text and names are found, text is replaced', async (t) => {
  const { fs, work } = await startSandbox(t)
  mkdirSync(join(work, 'src/deep'), { recursive: true })
  writeFileSync(join(work, 'src/a.js'), 'one\n// TODO: two\n')
  writeFileSync(join(work, 'src/deep/.b.js'), '// TODO: three\n')
  const matches = await fs.findFiles('src', 'TODO:')
  assert.deepEqual(
    matches.map(({ file, line, content }) => [basename(file), line, content.trim()]).sort(),
    [['.b.js', 1, '// TODO: three'], ['a.js', 2, '// TODO: two']],
  )
  const { files } = await fs.searchFiles('src', '*.js')
  assert.deepEqual(files.map((file) => basename(file)).sort(), ['.b.js', 'a.js'])
  const results = await fs.replaceInFiles(['src/a.js', 'missing'], 'TODO', 'DONE')
  assert.deepEqual(results.map(({ file, success }) => [file, success]), [['src/a.js', true], ['missing', false]])
  assert.equal(readFileSync(join(work, 'src/a.js'), 'utf8'), 'one\n// DONE: two\n')
})

test('any name and any bytes go up and down', async (t) => {
  const { fs, work } = await startSandbox(t)
  const content = Buffer.from(Array.from({ length: 70_000 }, (_, index) => index % 256))
  for (const name of NAMES) {
    await fs.uploadFile(content, `dir/${name}`)
    assert.deepEqual(readFileSync(join(work, 'dir', name)), content, name)
    assert.deepEqual(await fs.downloadFile(`dir/${name}`), content, name)
    assert.equal((await fs.getFileDetails(`dir/${name}`)).name, name)
  }
})

test('local files go up and down', async (t) => {
  const { fs, work } = await startSandbox(t)
  const directory = local(t)
  writeFileSync(join(directory, 'source'), randomBytes(3 << 20))
  await fs.uploadFile(join(directory, 'source'), 'big')
  await fs.downloadFile('big', join(directory, 'target'))
  const content = readFileSync(join(directory, 'source'))
  assert.deepEqual(readFileSync(join(work, 'big')), content)
  assert.deepEqual(readFileSync(join(directory, 'target')), content)
})

test('many files go up and down at once', async (t) => {
  const { fs, work } = await startSandbox(t)
  const directory = local(t)
  await fs.uploadFiles([
    { source: Buffer.from('one'), destination: 'many/1' },
    { source: Buffer.from('two'), destination: join(work, 'many/2') },
  ])
  const results = await fs.downloadFiles([
    { source: 'many/1' },
    { source: 'many/2', destination: join(directory, 'two') },
    { source: 'many/missing' },
  ])
  assert.deepEqual(results.map((result) => result.source), ['many/1', 'many/2', 'many/missing'])
  assert.equal(results[0].result.toString(), 'one')
  assert.equal(readFileSync(join(directory, 'two'), 'utf8'), 'two')
  assert.deepEqual([results[2].errorDetails.statusCode, results[2].errorDetails.code], [404, 'FILE_NOT_FOUND'])
})

test('streams go up and down', async (t) => {
  const { fs, work } = await startSandbox(t)
  const content = randomBytes(2 << 20)
  let sent = 0
  await fs.uploadFileStream(Readable.from([content]), 'stream', { onProgress: ({ bytesSent }) => (sent = bytesSent) })
  assert.deepEqual(readFileSync(join(work, 'stream')), content)
  assert.equal(sent, content.length)
  assert.deepEqual(Buffer.concat(await all(await fs.downloadFileStream('stream'))), content)
  await assert.rejects(async () => all(await fs.downloadFileStream('missing')), DaytonaFileNotFoundError)
})

test('an aborted upload leaves the old file', async (t) => {
  const { fs, work } = await startSandbox(t)
  writeFileSync(join(work, 'file'), 'old')
  const controller = new AbortController()
  const endless = new Readable({ read() { this.push(Buffer.alloc(1 << 16)) } })
  const onProgress = ({ bytesSent }) => bytesSent > 1 << 20 && controller.abort()
  await assert.rejects(fs.uploadFileStream(endless, 'file', { signal: controller.signal, onProgress }))
  assert.equal(readFileSync(join(work, 'file'), 'utf8'), 'old')
})

test('signed URLs need nothing but HTTP', async (t) => {
  const { sandbox, work } = await startSandbox(t)
  writeFileSync(join(work, 'a b+c'), 'content')
  const down = await sandbox.downloadUrl('a b+c')
  assert.equal(await (await fetch(down)).text(), 'content')
  assert.equal((await fetch(down.replace('a+b', 'a+x'))).status, 401)
  const up = await sandbox.uploadUrl('up/form', 60)
  const form = new FormData()
  form.append('file', new Blob(['as a form']), 'name')
  assert.equal((await fetch(up, { method: 'POST', body: form })).status, 200)
  assert.equal(readFileSync(join(work, 'up/form'), 'utf8'), 'as a form')
  await sandbox.rotateSigningKey()
  assert.equal((await fetch(down)).status, 401)
  assert.equal(await (await fetch(await sandbox.downloadUrl('a b+c'))).text(), 'content')
})

test('what is missing, or of the wrong kind, is said to be', async (t) => {
  const { fs, work } = await startSandbox(t)
  writeFileSync(join(work, 'file'), '')
  for (const call of [
    () => fs.getFileDetails('missing'),
    () => fs.listFiles('missing'),
    () => fs.downloadFile('missing'),
    () => fs.deleteFile('missing'),
    () => fs.moveFiles('missing', 'anywhere'),
    () => fs.setFilePermissions('missing', { mode: '644' }),
  ]) {
    const error = await call().then(() => assert.fail('it was found'), (error) => error)
    assert.ok(error instanceof DaytonaFileNotFoundError && error instanceof DaytonaNotFoundError, String(call))
    assert.deepEqual([error.statusCode, error.code], [404, 'FILE_NOT_FOUND'])
    assert.match(error.message, /missing/)
  }
  await assert.rejects(fs.listFiles('file'), DaytonaInvalidFilePathError)
})

test('what the system forbids is said to be', async (t) => {
  const { fs, work } = await startSandbox(t, { user: process.getuid() === 0 ? NOBODY : undefined })
  mkdirSync(join(work, 'closed'))
  writeFileSync(join(work, 'closed/secret'), '')
  chmodSync(join(work, 'closed/secret'), 0)
  await assert.rejects(fs.downloadFile('closed/secret'), DaytonaFileAccessDeniedError)
  await assert.rejects(fs.deleteFile('/etc/passwd'), DaytonaFileAccessDeniedError)
  await assert.rejects(fs.createFolder('/etc/new', '755'), DaytonaFileAccessDeniedError)
  assert.ok(!existsSync('/etc/new'))
})
