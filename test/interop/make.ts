/**
 * Writes an adapter of mixed ranks on every linear of a base in all forms: what `adapters.py` loads into other programs.
 *   npx tsx test/interop/make.ts models/small-base FOLDER
 */
import { mkdirSync } from 'node:fs';
import path from 'node:path';
import { padRank } from '../../models/io/adapter-pad.ts';
import { writeAdapter } from '../../models/io/adapter-write.ts';
import { openBase } from '../../models/io/base.ts';
import { linearsOf } from '../../train/model/model.ts';
import { module } from '../support/adapters.ts';

const [location, folder] = process.argv.slice(2);
const base = await openBase(location);
const linears = linearsOf(base);
const named = [
  ...[...linears.text].map(([name, shape]) => [`text_encoder.${name}`, shape] as const),
  ...[...linears.unet].map(([name, shape]) => [`unet.${name}`, shape] as const),
];
const adapter = {
  modules: new Map(named.map(([name, [dOut, dIn]], i) => [name, module(1 + ((i * 5) % 12), dIn, dOut, 0.01, i)])),
  metadata: new Map<string, string>(),
};
mkdirSync(folder, { recursive: true });
await writeAdapter(path.join(folder, 'diffusers.safetensors'), adapter);
await writeAdapter(path.join(folder, 'kohya.safetensors'), adapter, 'kohya');
await writeAdapter(path.join(folder, 'peft'), adapter, 'peft');
await writeAdapter(path.join(folder, 'padded.safetensors'), padRank(adapter));
process.stdout.write(`${named.length} modules in four forms in ${folder}\n`);
