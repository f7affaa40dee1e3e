/** The command line of `npm run train`, made from the schemas of its settings: names, words, choices, defaults. */
import { type Command, InvalidArgumentError, Option } from 'commander';
import type { z } from 'zod';
import { configSchema, type RunConfig } from '../config/config.ts';
import { startSchema } from '../config/invocation.ts';
import { PRESET_NAMES, runPresets } from '../config/presets.ts';
import { type Given, resolveConfig } from '../config/resolve.ts';
import { type About, aboutOf, defaultOf, GROUPS, kindOf, optionOf } from '../config/setting.ts';
import { command, type Io } from './command.ts';

/** commander's parser of numbers; their range is the schema's business */
const number = (text: string): number => {
  const x = Number(text);
  if (text.trim() === '' || Number.isNaN(x)) throw new InvalidArgumentError('expected a number');
  return x;
};
const numberOrAuto = (text: string): number | 'auto' => (text === 'auto' ? text : number(text));

/** `--no-train-text-encoder`: what is on by default can only be switched off. */
const isNegated = (field: z.ZodType): boolean => kindOf(field).type === 'boolean' && defaultOf(field) === true;

/** `--batch <n>` */
function flagsOf(key: string, field: z.ZodType, about: About): string {
  const kind = kindOf(field);
  const option = isNegated(field) ? optionOf(key).replace('--', '--no-') : optionOf(key);
  if (kind.type === 'boolean') return about.auto ? `${option} [${about.value}]` : option;
  const named = {
    number: kind.type === 'number' && kind.whole ? 'n' : 'x',
    text: 'text',
    choice: 'name',
    list: 'name',
  };
  const value = about.value ?? named[kind.type];
  return `${option} <${value}${kind.type === 'list' ? '...' : ''}>`;
}

/** What it does, what can be chosen, and what it is where nothing is given. */
export function wordsOf(field: z.ZodType): string {
  const [about, kind, value] = [aboutOf(field), kindOf(field), defaultOf(field)];
  const choices = about.auto && kind.type === 'boolean' ? ['auto', 'on', 'off'] : kind.type === 'choice' ? kind.of : [];
  const told = about.auto ? 'auto' : value === undefined || value === null || typeof value === 'object' ? '' : value;
  const notes = [
    ...(choices.length > 0 ? [choices.join(', ')] : []),
    ...(told === '' || typeof told === 'boolean' ? [] : [`default: ${told}`]),
  ];
  return `${about.help}${notes.length > 0 ? ` (${notes.join('; ')})` : ''}`;
}

/** A setting as an option of a command. */
export function optionFor(key: string, field: z.ZodType): Option {
  const [about, kind] = [aboutOf(field), kindOf(field)];
  const option = new Option(flagsOf(key, field, about), wordsOf(field)).helpGroup(`${about.group}:`);
  if (kind.type === 'number') return option.argParser(about.auto ? numberOrAuto : number);
  return option;
}

const EXAMPLES = [
  '',
  '--method lora --rank 4',
  '--data films/ --base sd15/ --preset iu-xray',
  '--data films/ --targets attn --lambda 1.3 --test-every 20 --budget 400',
  '--base sd15/ --data films/ --resolution 224 --estimate',
  '--resume runs/2026-11-24-phantoms',
];

/** Every option by its key, in the order of the headings. */
export const optionFields: readonly (readonly [key: string, field: z.ZodType])[] = GROUPS.flatMap((group) =>
  Object.entries<z.ZodType>({ ...startSchema.shape, ...configSchema.shape }).filter(
    ([, field]) => aboutOf(field).group === group,
  ),
);

/** A word as a shell takes it. */
export const quoted = (text: string): string =>
  /^[\w./:,=@+-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;

/** A setting as it is typed; nothing where it need not be. */
function typed(key: keyof RunConfig, value: unknown): readonly string[] {
  const field: z.ZodType = configSchema.shape[key];
  const option = optionOf(key);
  if (typeof value === 'boolean') {
    if (aboutOf(field).auto) return [option, value ? 'on' : 'off'];
    if (value === isNegated(field)) return [];
    return [value ? option : option.replace('--', '--no-')];
  }
  return [option, ...(Array.isArray(value) ? value : [value]).map(String)];
}
/** Settings as arguments of a process. @example argumentsOf({ batch: 4 }) // ['--batch', '4'] */
export const argumentsOf = (given: Given): readonly string[] =>
  Object.entries(given).flatMap(([key, value]) =>
    value === null || value === undefined ? [] : typed(key as keyof RunConfig, value),
  );

/** `phantoms  --steps 2000 --lr 0.003 …`, one line per preset. */
const presetLines = (): readonly string[] =>
  PRESET_NAMES.map((name) => {
    const words = Object.entries(runPresets[name]).flatMap(([key, value]) =>
      typed(key as keyof RunConfig, value).map(quoted),
    );
    return `  ${name.padEnd(13)} ${words.join(' ')}`;
  });

/** `npm run train -- …` */
export function trainCommand(io: Io): Command {
  const program = command(
    'train',
    'Fine-tunes a text-to-image diffusion model with SeLoRA (adapters that grow their own ranks), LoRA and others.',
    EXAMPLES,
    io,
  );
  for (const [key, field] of optionFields) program.addOption(optionFor(key, field));
  return program.addHelpText(
    'after',
    `\nPresets, under what is given beside them (phantoms where there is no --data):\n${presetLines().join('\n')}`,
  );
}

/**
 * The command that begins a run with these settings: what differs from the defaults for its data.
 * @example commandOf(config) // npm run train -- --data films --lr 0.0003 --steps 2000
 */
export function commandOf(c: RunConfig): string {
  const plain = resolveConfig({ data: c.data });
  const words = (Object.keys(configSchema.shape) as (keyof RunConfig)[]).flatMap((key): readonly string[] => {
    const value = c[key];
    if (key === 'data') return value === 'phantoms' ? [] : typed(key, value);
    // a run in epochs has no use for its number of steps
    if (value === undefined || value === null || (key === 'steps' && c.epochs !== null)) return [];
    if (JSON.stringify(value) === JSON.stringify(plain[key])) return [];
    return typed(key, value);
  });
  return ['npm run train', ...(words.length > 0 ? ['--', ...words.map(quoted)] : [])].join(' ');
}
