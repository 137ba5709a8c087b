// Bundles src/frontend into dist: assets get the hash of their content in their names, index.html refers to those names.
import { createHash } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, extname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const source = join(root, 'src', 'frontend')
const target = join(root, 'dist')

rmSync(target, { recursive: true, force: true })
mkdirSync(join(target, 'assets'), { recursive: true })

let page = readFileSync(join(source, 'index.html'), 'utf8')
let files = 1
for (const name of readdirSync(source).sort()) {
  if (name === 'index.html') continue
  const content = readFileSync(join(source, name))
  const hash = createHash('sha256').update(content).digest('hex').slice(0, 8)
  const extension = extname(name)
  const hashed = `${name.slice(0, -extension.length)}.${hash}${extension}`
  if (!page.includes(`"${name}"`)) throw new Error(`index.html does not refer to ${name}`)
  page = page.replaceAll(`"${name}"`, `"assets/${hashed}"`)
  writeFileSync(join(target, 'assets', hashed), content)
  files += 1
}
writeFileSync(join(target, 'index.html'), page)
console.log(`Build successful: ${files} files in dist/`)
