// Clone, pull, push and credentials with the TypeScript SDK, against a private server on loopback.

import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'

import {
  DaytonaConflictError,
  DaytonaGitAuthFailedError,
  DaytonaGitBranchNotFoundError,
  DaytonaGitDirtyWorktreeError,
  DaytonaGitMergeConflictError,
  DaytonaGitPushRejectedError,
  DaytonaGitRepoNotFoundError,
  DaytonaGitTransportFailedError,
} from '@daytonaio/sdk'

import { all, startSandbox } from './support.mjs'

const LOGIN = ['me', 's3cr3t']
const ENVIRONMENT = {
  PATH: process.env.PATH,
  HOME: '/nonexistent',
  GIT_CONFIG_NOSYSTEM: '1',
  GIT_AUTHOR_NAME: 'A',
  GIT_AUTHOR_EMAIL: 'a@example.com',
  GIT_COMMITTER_NAME: 'C',
  GIT_COMMITTER_EMAIL: 'c@example.com',
}

/** What the git program prints; it must succeed. */
function git(directory, ...parameters) {
  const options = { cwd: directory, env: ENVIRONMENT, encoding: 'utf8' }
  return execFileSync('git', ['-c', 'safe.directory=*', ...parameters], options).trim()
}

/** `git http-backend` for whoever has the login. */
async function answer(root, request, response) {
  const body = Buffer.concat(await all(request))
  if (request.headers.authorization !== `Basic ${Buffer.from(LOGIN.join(':')).toString('base64')}`) {
    return response.writeHead(401, { 'WWW-Authenticate': 'Basic realm="x"' }).end()
  }
  const [path, query = ''] = request.url.split('?')
  const env = {
    ...ENVIRONMENT,
    GIT_PROJECT_ROOT: root,
    GIT_HTTP_EXPORT_ALL: '1',
    REMOTE_USER: LOGIN[0],
    REQUEST_METHOD: request.method,
    PATH_INFO: path,
    QUERY_STRING: query,
    CONTENT_TYPE: request.headers['content-type'] ?? '',
    CONTENT_LENGTH: String(body.length),
  }
  const child = spawn('git', ['-c', 'safe.directory=*', 'http-backend'], { env, stdio: ['pipe', 'pipe', 'ignore'] })
  child.stdin.on('error', () => {}) // it may answer before it has read everything
  child.stdin.end(body)
  const output = Buffer.concat(await all(child.stdout))
  const end = output.indexOf('\r\n\r\n')
  const lines = output.subarray(0, end).toString().split('\r\n')
  const headers = Object.fromEntries(lines.map((line) => line.split(': ')))
  response.writeHead(Number((headers.Status ?? '200').slice(0, 3)), headers).end(output.subarray(end + 4))
}

/** A bare repository with branches `main` and `test`, and a work tree that pushes to it; gone when the test ends. */
async function startUpstream(t) {
  const root = mkdtempSync(join(tmpdir(), 'toolboxd-upstream-'))
  const server = createServer((request, response) => answer(root, request, response))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => {
    server.closeAllConnections()
    server.close()
    rmSync(root, { recursive: true, force: true })
  })
  const work = join(root, 'work')
  git(root, 'init', '-q', '--bare', '--initial-branch=main', 'repo.git')
  git(root, 'init', '-q', '--initial-branch=main', 'work')
  git(work, 'remote', 'add', 'origin', '../repo.git')
  const commit = (name, content) => {
    writeFileSync(join(work, name), content)
    git(work, 'add', '--all')
    git(work, 'commit', '-q', '-m', name)
    git(work, 'push', '-q', 'origin', 'HEAD')
    return git(work, 'rev-parse', 'HEAD')
  }
  commit('README', 'one\n')
  git(work, 'push', '-q', 'origin', 'main:test')
  const host = `127.0.0.1:${server.address().port}`
  return { work, host, commit, url: `http://${host}/repo.git`, tip: (branch) => git(join(root, 'repo.git'), 'rev-parse', branch) }
}

test('a repository is cloned, changed, pushed and pulled', async (t) => {
  const upstream = await startUpstream(t)
  const { sandbox, work } = await startSandbox(t)
  const repo = join(work, 'repo')
  await sandbox.git.clone(upstream.url, 'repo', undefined, undefined, ...LOGIN)
  const { currentBranch, branchPublished, ahead, behind } = await sandbox.git.status('repo')
  assert.deepEqual([currentBranch, branchPublished, ahead, behind], ['main', true, 0, 0])
  writeFileSync(join(repo, 'new'), 'x')
  await sandbox.git.add('repo', ['new'])
  const { sha } = await sandbox.git.commit('repo', 'message', 'A', 'a@example.com')
  await sandbox.git.push('repo', ...LOGIN)
  assert.equal(upstream.tip('main'), sha)
  git(upstream.work, 'pull', '-q', 'origin', 'main')
  const tip = upstream.commit('README', 'two\n')
  await sandbox.git.pull('repo', ...LOGIN)
  assert.equal(git(repo, 'rev-parse', 'HEAD'), tip)
  await sandbox.git.createBranch('repo', 'topic')
  await sandbox.git.push('repo', ...LOGIN, undefined, undefined, true)
  assert.equal((await sandbox.git.status('repo')).branchPublished, true)
  assert.ok(!readFileSync(join(repo, '.git/config'), 'utf8').includes(LOGIN[1]))
  git(repo, 'fsck', '--strict')
})

test('branches, commits and depths are chosen', async (t) => {
  const upstream = await startUpstream(t)
  const { sandbox, work } = await startSandbox(t)
  const first = upstream.tip('main')
  upstream.commit('README', 'two\n')
  await sandbox.git.clone(upstream.url, 'branch', 'test', undefined, ...LOGIN)
  assert.equal((await sandbox.git.status('branch')).currentBranch, 'test')
  await sandbox.git.clone(upstream.url, 'commit', undefined, first.slice(0, 10), ...LOGIN, true)
  assert.equal(git(join(work, 'commit'), 'rev-parse', 'HEAD'), first)
  await sandbox.git.clone(upstream.url, 'shallow', undefined, undefined, ...LOGIN, false, 1)
  assert.equal(git(join(work, 'shallow'), 'rev-list', '--count', 'HEAD'), '1')
  const tip = upstream.commit('README', 'three\n')
  await sandbox.git.pull('shallow', ...LOGIN, 'main', 'origin')
  assert.equal(git(join(work, 'shallow'), 'rev-parse', 'HEAD'), tip)
})

test('kept credentials serve later calls', async (t) => {
  const upstream = await startUpstream(t)
  const { sandbox, daemon, work } = await startSandbox(t)
  await sandbox.git.dangerouslyAuthenticate(...LOGIN, upstream.host, 'http')
  assert.equal(readFileSync(join(daemon.home, '.git-credentials'), 'utf8'), `http://me:s3cr3t@${upstream.host}\n`)
  assert.equal(await sandbox.git.getConfig('credential.helper'), 'store')
  await sandbox.git.clone(upstream.url, 'repo')
  await sandbox.git.init('other')
  await sandbox.git.remoteAdd('other', 'origin', upstream.url, true)
  assert.equal(git(join(work, 'other'), 'rev-parse', 'origin/test'), upstream.tip('test'))
})

test('failures have their classes', async (t) => {
  const upstream = await startUpstream(t)
  const { sandbox, work } = await startSandbox(t)
  const clone = (...parameters) => sandbox.git.clone(parameters[0] ?? upstream.url, 'repo', ...parameters.slice(1))
  await assert.rejects(clone(), DaytonaGitAuthFailedError)
  await assert.rejects(clone(undefined, undefined, undefined, 'me', 'wrong'), DaytonaGitAuthFailedError)
  const none = upstream.url.replace('repo', 'none')
  await assert.rejects(clone(none, undefined, undefined, ...LOGIN), DaytonaGitRepoNotFoundError)
  await assert.rejects(clone(undefined, 'none', undefined, ...LOGIN), DaytonaGitBranchNotFoundError)
  await assert.rejects(clone('http://host.invalid/x'), DaytonaGitTransportFailedError)
  assert.ok(!existsSync(join(work, 'repo')))
  await clone(undefined, undefined, undefined, ...LOGIN)
  await assert.rejects(clone(undefined, undefined, undefined, ...LOGIN), DaytonaConflictError)
  upstream.commit('README', 'theirs\n')
  writeFileSync(join(work, 'repo/README'), 'ours\n')
  await assert.rejects(sandbox.git.pull('repo', ...LOGIN), DaytonaGitDirtyWorktreeError)
  await sandbox.git.add('repo', ['README'])
  await sandbox.git.commit('repo', 'ours', 'A', 'a@example.com')
  await assert.rejects(sandbox.git.push('repo', ...LOGIN), DaytonaGitPushRejectedError)
  await assert.rejects(sandbox.git.pull('repo', ...LOGIN), DaytonaGitMergeConflictError)
})
