// Every language server method of the TypeScript SDK, with real servers.

import assert from 'node:assert/strict'
import { mkdirSync, writeFileSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'

import { DaytonaError, LspLanguageId } from '@daytonaio/sdk'

import { startSandbox } from './support.mjs'

/** Reached only when something is broken. */
const limited = { timeout: 120_000 }

/** The servers that the tests install come first. */
const servers = ['../../.venv/bin', '../node_modules/.bin'].map((path) => fileURLToPath(new URL(path, import.meta.url)))
const env = { PATH: [...servers, process.env.PATH].join(delimiter) }

const typescript = 'export class Greeter {\n  greet(name: string) { return name }\n}\nconst greeter = new Greeter()\ngreeter.\n'
const sources = {
  python: ['sample.py', 'class Greeter:\n    def greet(self, name):\n        return name\n\n\ngreeter = Greeter()\ngreeter.\n', 6],
  typescript: ['sample.ts', typescript, 4],
  javascript: ['sample.js', typescript.replace(': string', ''), 4],
}

async function startProject(t, language) {
  const { sandbox, work } = await startSandbox(t, { env })
  const [name, text, line] = sources[language]
  mkdirSync(join(work, 'e2e-lsp-project'))
  writeFileSync(join(work, 'e2e-lsp-project', name), text)
  const lsp = await sandbox.createLspServer(language, 'e2e-lsp-project')
  return { lsp, work, path: `e2e-lsp-project/${name}`, line }
}

for (const language of Object.keys(sources)) {
  test(`the scenario of the SDK's own suite works for ${language}`, limited, async (t) => {
    assert.ok(Object.values(LspLanguageId).includes(language))
    const { lsp, work, path, line } = await startProject(t, language)
    await lsp.start()
    await lsp.didOpen(path)
    const symbols = await lsp.documentSymbols(path)
    const greeter = symbols.find((symbol) => symbol.name === 'Greeter')
    assert.equal(greeter.location.uri, `file://${join(work, path)}`)
    assert.equal(greeter.location.range.start.line, 0)
    const found = await lsp.sandboxSymbols('Greeter')
    assert.ok(found.some((symbol) => symbol.name === 'Greeter'))
    assert.deepEqual(await lsp.workspaceSymbols('Greeter'), found)
    const completions = await lsp.completions(path, { line, character: 8 })
    assert.ok(completions.items.some((item) => item.label.startsWith('greet')))
    assert.equal(typeof completions.isIncomplete, 'boolean')
    assert.ok((await lsp.completions(path, { line: 0, character: 0 })).items.length > 0)
    await lsp.didClose(path)
    await lsp.stop()
    await assert.rejects(lsp.documentSymbols(path), (error) => {
      assert.ok(error instanceof DaytonaError)
      assert.equal(error.constructor.name, 'DaytonaLspServerNotInitializedError')
      assert.match(error.message, /server not initialized/)
      return true
    })
  })
}
