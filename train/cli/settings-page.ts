/** config/SETTINGS.md: every setting of `npm run train` in one table per heading, written from the fields themselves. */

import { configSchema } from '../config/config.ts';
import { aboutOf, GROUPS, optionOf } from '../config/setting.ts';
import { optionFields, wordsOf } from './flags.ts';

const cell = (text: string): string => text.replaceAll('|', '\\|').replaceAll('<', '\\<').replaceAll('*', '\\*');

/** The last column: what may be given beside `--resume`. */
const RESUMED: Readonly<Record<string, string>> = {
  true: 'yes',
  moved: 'another place of the same content',
  undefined: '',
};

/** The page as Markdown. A test holds the file to it. */
export function settingsPage(): string {
  const lines = GROUPS.flatMap((group) => {
    const rows = optionFields
      .filter(([, field]) => aboutOf(field).group === group)
      .map(([key, field]) => {
        const name = Object.hasOwn(configSchema.shape, key) ? `\`${key}\`` : '';
        return `| \`${optionOf(key)}\` | ${name} | ${cell(wordsOf(field))} | ${RESUMED[`${aboutOf(field).changeable}`]} |`;
      });
    return [
      '',
      `## ${group}`,
      '',
      '| option | in `config.json` | what it does | with `--resume` |',
      '| --- | --- | --- | --- |',
      ...rows,
    ];
  });
  return `${['# Settings of `npm run train`', '', 'Written from the fields in `config.ts` and `invocation.ts`; `npx tsx test/run.ts test/train/config --update` after a change there. `trainTextEncoder` is given as `--no-train-text-encoder`.', ...lines].join('\n')}\n`;
}
