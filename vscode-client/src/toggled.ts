/** A list of language identifiers with one more or one less. */

/** The list without the language, or with it. */
export function toggled(languages: readonly string[], language: string): string[] {
  return languages.includes(language)
    ? languages.filter((each) => each !== language)
    : [...languages, language].sort((a, b) => a.localeCompare(b));
}
