import { join } from 'node:path'
import { didYouMean } from '../base/did-you-mean.ts'
import { EXIT, Failure } from '../base/failure.ts'
import { ROOT } from '../base/root.ts'
import { moduleNames, readChecked, wrongFile } from './checked-files.ts'
import { type Module } from './types.ts'

/** @throws Failure 64 no such module · 78 its descriptor is wrong */
export function readModule(name: string): { module: Module; modulePath: string } {
  const all = moduleNames()
  if (!all.includes(name)) {
    const guess = didYouMean(name, all)
    throw new Failure(
      EXIT.usage,
      `there is no module "${name}". Known: ${all.join(', ')}.${guess.en}`,
      `没有模块 “${name}”。已知模块：${all.join('、')}。${guess.zh}`,
    ).next`
      a module is added with a descriptor modules/NAME.json (see README.md)
      新增模块只需编写 modules/NAME.json（见 README.md）`
  }
  const modulePath = join(ROOT, 'modules', `${name}.json`)
  const module = readChecked<Module>(modulePath, 'module')
  const { releases } = module
  const hasTwice = (values: string[]) => new Set(values).size < values.length
  if (module.name !== name)
    throw wrongFile(modulePath, `/name: must be "${name}", as the file is called`)
  if (hasTwice(releases.map(({ release }) => release)))
    throw wrongFile(modulePath, '/releases: two releases have the same name')
  if (hasTwice(releases.map(({ backup }) => backup)))
    throw wrongFile(
      modulePath,
      '/releases: each release needs a backup of its own; two have the same name',
    )
  return { module, modulePath }
}

/** What the bundles of a module may be called: after a chart, the module, or the manual's file. */
export function bundleNames({ name, releases, bundle }: Module): string[] {
  const file = bundle.file.replace(/\.bundle\.tar$/, '')
  return [...new Set([...releases.map(({ chart }) => chart), name, file])]
}
