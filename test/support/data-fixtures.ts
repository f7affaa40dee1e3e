/** Data folders made in code for the tests of the loaders. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { expect } from 'vitest';
import { FileError } from '../../models/io/error.ts';
import { encodePng } from '../../train/data/pictures/image-write.ts';
import { scratch } from './scratch.ts';

export { scratch };

/** A small PNG. */
export const film: Uint8Array = await encodePng(
  new Float32Array(8 * 8 * 3).map((_, at) => Math.sin(at)),
  8,
);

let made = 0;
/** A fresh folder with these files; `undefined` stands for a small film. */
export function folder(files: Readonly<Record<string, string | Uint8Array | undefined>>): string {
  const dir = join(scratch, `case${made++}`, 'data');
  mkdirSync(dir, { recursive: true });
  for (const [name, content] of Object.entries(files)) {
    mkdirSync(dirname(join(dir, name)), { recursive: true });
    writeFileSync(join(dir, name), content ?? film);
  }
  return dir;
}

/** The message of the refusal: a FileError of one line. */
export async function refusal(loading: Promise<unknown>): Promise<string> {
  const error = await loading.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(FileError);
  const { message } = error as FileError;
  expect(message).not.toMatch(/\p{Cc}/u);
  return message;
}

/** A metadata.csv with these rows. */
export const rows = (...lines: readonly string[]) => ['file_name,text', ...lines, ''].join('\n');

/** An Open-i report file. */
export const report = (
  uid: string,
  findings: string,
  images: readonly (readonly [string, string])[],
  impression = 'Stable.',
) =>
  `<?xml version="1.0"?>\n<eCitation><uId id="${uid}"/><MedlineCitation><Article><Abstract>` +
  `<AbstractText Label="FINDINGS">${findings}</AbstractText><AbstractText Label="IMPRESSION">${impression}</AbstractText>` +
  `</Abstract></Article></MedlineCitation>${images
    .map(([id, caption]) => `<parentImage id="${id}"><caption>${caption}</caption></parentImage>`)
    .join('')}</eCitation>`;
