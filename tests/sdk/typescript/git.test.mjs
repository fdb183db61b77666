// Git methods of the TypeScript SDK that need no remote.

import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'

import { DaytonaConflictError, DaytonaNotFoundError } from '@daytonaio/sdk'

import { startSandbox } from './support.mjs'

/** `repo` with one commit of `a.txt`, made through the SDK, and the `git` program in it. */
async function startRepo(t) {
  const { sandbox, daemon, work } = await startSandbox(t)
  const root = join(work, 'repo')
  const env = { PATH: process.env.PATH, HOME: daemon.home, GIT_CONFIG_NOSYSTEM: '1' }
  const identity = ['-c', 'user.name=Ada', '-c', 'user.email=ada@example.com']
  const run = (...args) => execFileSync('git', [...identity, ...args], { cwd: root, env, encoding: 'utf8' }).trimEnd()
  const write = (name, text) => writeFileSync(join(root, name), text)
  const { git } = sandbox
  await git.init('repo', false, 'main')
  write('a.txt', 'one\n')
  await git.add('repo', ['.'])
  const { sha } = await git.commit('repo', 'first', 'Grace', 'grace@example.com')
  assert.equal(sha, run('rev-parse', 'HEAD'))
  return { git, run, write, root }
}

const states = async (git) =>
  (await git.status('repo')).fileStatus.map(({ name, staging, worktree }) => [name, staging, worktree])

test('files are staged and committed', async (t) => {
  const { git, run, write } = await startRepo(t)
  write('ünï 日本.txt', 'new\n')
  assert.deepEqual(await states(git), [['ünï 日本.txt', 'Untracked', 'Untracked']])
  await git.add('repo', ['ünï 日本.txt'])
  assert.deepEqual(await states(git), [['ünï 日本.txt', 'Added', 'Unmodified']])
  await git.commit('repo', 'second', 'Grace', 'grace@example.com')
  await assert.rejects(git.commit('repo', 'nothing', 'Grace', 'grace@example.com'), DaytonaConflictError)
  await git.commit('repo', 'nothing', 'Grace', 'grace@example.com', true)
  assert.equal(run('log', '--format=%an %s'), 'Grace nothing\nGrace second\nGrace first')
  const { currentBranch, fileStatus, ahead, behind } = await git.status('repo')
  assert.deepEqual({ currentBranch, fileStatus, ahead, behind }, { currentBranch: 'main', fileStatus: [], ahead: 0, behind: 0 })
})

test('branches are created, switched and deleted', async (t) => {
  const { git } = await startRepo(t)
  await git.createBranch('repo', 'feature/x')
  assert.equal((await git.status('repo')).currentBranch, 'feature/x')
  await git.checkoutBranch('repo', 'main')
  assert.deepEqual((await git.branches('repo')).branches, ['feature/x', 'main'])
  await assert.rejects(git.createBranch('repo', 'main'), DaytonaConflictError)
  await assert.rejects(git.deleteBranch('repo', 'main'), DaytonaConflictError)
  await git.deleteBranch('repo', 'feature/x')
  await assert.rejects(git.deleteBranch('repo', 'feature/x'), DaytonaNotFoundError)
})

test('checkout loses nothing', async (t) => {
  const { git, run, write, root } = await startRepo(t)
  run('branch', 'other')
  write('a.txt', 'two\n')
  run('commit', '--quiet', '-am', 'second')
  write('a.txt', 'mine\n')
  await assert.rejects(git.checkoutBranch('repo', 'other'), DaytonaConflictError)
  await assert.rejects(git.checkoutBranch('repo', 'nosuch'), DaytonaNotFoundError)
  assert.equal(run('rev-parse', '--abbrev-ref', 'HEAD'), 'main')
  assert.equal(readFileSync(join(root, 'a.txt'), 'utf8'), 'mine\n')
})

test('reset and restore', async (t) => {
  const { git, run, write, root } = await startRepo(t)
  write('a.txt', 'staged\n')
  await git.add('repo', ['a.txt'])
  await git.reset('repo', undefined, undefined, ['a.txt'])
  assert.deepEqual(await states(git), [['a.txt', 'Unmodified', 'Modified']])
  await git.restore('repo', ['a.txt'])
  assert.equal(readFileSync(join(root, 'a.txt'), 'utf8'), 'one\n')
  run('commit', '--quiet', '--allow-empty', '-m', 'second')
  await git.reset('repo', 'hard', 'HEAD~1')
  assert.equal(run('rev-list', '--count', 'HEAD'), '1')
})

test('remotes and settings', async (t) => {
  const { git, run } = await startRepo(t)
  await git.remoteAdd('repo', 'origin', 'https://example.com/a.git')
  await assert.rejects(git.remoteAdd('repo', 'origin', 'https://example.com/b.git'), DaytonaConflictError)
  assert.deepEqual((await git.remotes('repo')).remotes, [{ name: 'origin', url: 'https://example.com/a.git' }])
  assert.equal(await git.remoteGet('repo', 'origin'), 'https://example.com/a.git')
  assert.equal((await git.getConfig('user.name')) ?? null, null)
  await git.configureUser('Ada', 'ada@example.com')
  await git.setConfig('my.value', 'x', 'local', 'repo')
  assert.equal(await git.getConfig('my.value', 'local', 'repo'), 'x')
  assert.equal(run('config', '--global', 'user.name'), 'Ada')
})
