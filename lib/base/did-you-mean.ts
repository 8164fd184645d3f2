import { closest, distance } from 'fastest-levenshtein'

/**
 * A guess for the end of a sentence, ` Did you mean mspider?`, in English and Chinese; empty where no
 * known word is near: at most a third of the letters may differ.
 * @param word what was typed
 */
export function didYouMean(word: string, known: readonly string[]): { en: string; zh: string } {
  const near = known.length > 0 ? closest(word, known) : ''
  if (!near || distance(word, near) > Math.max(2, Math.floor(word.length / 3)))
    return { en: '', zh: '' }
  return { en: ` Did you mean ${near}?`, zh: `您是不是想输入 ${near}？` }
}
