import { bug } from '../base/failure.ts'
import { heading, type StepName } from '../manual/ledger.ts'
import { word } from './order.ts'
import { firstTime, isPart, print, report as reportLine, thisRun } from './session.ts'

/** The manual's heading, where it is in the manual, and where we differ. */
export const step = word('step', (name: StepName) => {
  const { inputs, dryRun } = thisRun()
  const way = { via: inputs.flags.via, kind: inputs.site.chartRepository.kind }
  const { en, zh, lines, differs } = heading(inputs.module, way, name)
  printHeading(en, zh, lines, name)
  if (dryRun)
    differs.forEach(({ where, en, zh }) =>
      printRemark(`differs from ${where}: ${en}`, `与 ${where} 不同：${zh}`),
    )
})

/** A heading of ours, for what the manual does not have. */
export const ownStep = word('ownStep', (en: string, zh: string) => {
  refuseOneLanguage('ownStep', en, zh)
  printHeading(en, zh, 'not in the manual · 手册中没有')
})

function printHeading(en: string, zh: string, lines: string, name?: StepName) {
  const run = thisRun()
  run.step = { title: `${en} · ${zh}`, lines, name }
  const { lang } = run.inputs.flags
  const inLang = (text: string) => (lang ? text.split(' · ').at(lang === 'zh' ? -1 : 0) : text)
  const text = `# ${inLang(`${en} · ${zh}`)} (${inLang(lines)})`
  print('\n' + (process.stdout.isTTY && !run.dryRun ? `\x1b[1m${text}\x1b[0m` : text))
}

/** In the language that --lang names, else in both. */
function printRemark(en: string, zh: string) {
  const { lang } = thisRun().inputs.flags
  const lines = [...(lang === 'zh' ? [] : [en]), ...(lang === 'en' ? [] : [zh])]
  print(lines.map((line) => `# ${line}`).join('\n'))
}

/** @throws Failure 70 */
function refuseOneLanguage(called: string, en: string, zh: string) {
  if (en && zh) return
  throw bug`
    ${called}(en, zh) needs its text in English and in Chinese: ${JSON.stringify(en ?? zh)}
    ${called}(en, zh) 需要英文和中文两种文本：${JSON.stringify(en ?? zh)}`
}

/** A remark: a comment in the dry run, a line in a real run; of parts that go on side by side, the first makes it. */
export const say = word('say', (en: string, zh: string) => {
  refuseOneLanguage('say', en, zh)
  if (!isPart() || firstTime(en)) printRemark(en, zh)
})

/** A line for the person at the terminal; a dry run has none. */
export const report = word('report', reportLine)

/**
 * Something that is not a command of the manual: reading a file, checking a state. A dry run says what
 * a real run would do there, and does nothing.
 * @param en what it does, in English
 * @param zh the same in Chinese
 * @param standIn what a dry run goes on with
 * @returns what `work` returns
 */
async function checked(en: string, zh: string, work: () => Promise<void>): Promise<void>
async function checked<T>(en: string, zh: string, work: () => Promise<T>, standIn: T): Promise<T>
async function checked<T>(en: string, zh: string, work: () => Promise<T>, standIn?: T) {
  say(en, zh)
  return thisRun().dryRun ? standIn : await work()
}
export const check = word('check', checked)
