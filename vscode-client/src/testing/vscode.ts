/** What tests of modules without an editor have of it: messages in English, with their arguments. */

export const l10n = {
  t(message: string, ...args: readonly (string | number | boolean)[]): string {
    return message.replaceAll(/\{(\d+)\}/g, (whole, index: string) => {
      const given = args[Number(index)];
      return given === undefined ? whole : String(given);
    });
  },
};
