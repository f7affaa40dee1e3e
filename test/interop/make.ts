/**
 * Writes adapters of mixed ranks in all forms, what `adapters.py` loads into other programs: on every linear of a base, and
 * in the folder `all` on every convolution, too.
 *   npx tsx test/interop/make.ts models/small-base FOLDER
 */
import { mkdirSync } from 'node:fs';
import path from 'node:path';
import type { AdapterFile } from '../../models/io/adapter-file.ts';
import { padRank } from '../../models/io/adapter-pad.ts';
import { writeAdapter } from '../../models/io/adapter-write.ts';
import { openBase } from '../../models/io/base.ts';
import { inputsOf } from '../../selora/methods/low-rank.ts';
import { linearsOf, placesOf } from '../../train/model/model.ts';
import type { ModelPlaces } from '../../train/model/pipeline.ts';
import { module } from '../support/adapters.ts';

const [location, folder] = process.argv.slice(2);
const base = await openBase(location);

/** An adapter of ranks 1 to 12 on these places. */
function adapterOn(places: ModelPlaces): AdapterFile {
  const named = [
    ...[...places.text].map(([name, place]) => [`text_encoder.${name}`, place] as const),
    ...[...places.unet].map(([name, place]) => [`unet.${name}`, place] as const),
  ];
  const modules = named.map(([name, place], i) => {
    const made = module(1 + ((i * 5) % 12), inputsOf(place), place[0], 0.01, i);
    return [name, place.length === 2 ? made : { ...made, kernel: [place[2], place[3]] as const }] as const;
  });
  return { modules: new Map(modules), metadata: new Map() };
}

for (const [to, places] of [
  [folder, linearsOf(base)],
  [path.join(folder, 'all'), placesOf(base)],
] as const) {
  const adapter = adapterOn(places);
  mkdirSync(to, { recursive: true });
  await writeAdapter(path.join(to, 'diffusers.safetensors'), adapter);
  await writeAdapter(path.join(to, 'kohya.safetensors'), adapter, 'kohya');
  await writeAdapter(path.join(to, 'peft'), adapter, 'peft');
  await writeAdapter(path.join(to, 'peft-flat'), adapter, 'peft-flat');
  await writeAdapter(path.join(to, 'padded.safetensors'), padRank(adapter));
  process.stdout.write(`${adapter.modules.size} modules in five forms in ${to}\n`);
}
