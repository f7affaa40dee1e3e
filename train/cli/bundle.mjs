/**
 * A command as a few files of JavaScript in `node_modules/.cache`, made anew when a source has changed. Compiled file by
 * file, a command takes seconds of one core before its first line.
 *
 * A bundle lies in a folder named by its command and by the contents of all sources. Asked at each start is only whether
 * a source's size or times have changed; if so, its contents are read. Packages are left where they are, parts that are
 * imported late stay late, and `import.meta` tells the place of the source.
 */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

const ROOT = path.resolve(import.meta.dirname, '../..');
const CACHE = path.join(ROOT, 'node_modules/.cache/selora-ts');
const ROOMS = ['core', 'nn', 'models', 'selora', 'train'];
/** How esbuild makes a program for Node of our sources; the bundles of tests are made by the same. */
const OPTIONS = JSON.parse(readFileSync(path.join(import.meta.dirname, 'esbuild.json'), 'utf8'));
/** Bundles of a command that stay: those of two states of the sources, so that one may go back and forth. */
const KEPT = 2;
/** In a bundle's folder: one file for each process that runs it, which may yet import a part. */
const USERS = 'users';

/** A source does not compile; the message says where. */
export class BrokenSource extends Error {}

/** All that a bundle is made of, or by. */
function sources() {
  const found = ['train/cli/bundle.mjs', 'train/cli/esbuild.json', 'tsconfig.json', 'node_modules/esbuild/package.json'];
  const walk = (folder) => {
    for (const entry of readdirSync(path.join(ROOT, folder), { withFileTypes: true })) {
      const file = `${folder}/${entry.name}`;
      if (entry.isDirectory()) walk(file);
      else if (file.endsWith('.ts')) found.push(file);
    }
  };
  for (const room of ROOMS) if (existsSync(path.join(ROOT, room))) walk(room);
  return found.sort();
}
const digest = (files, told) => {
  const hash = createHash('sha256').update(ROOT);
  for (const file of files) hash.update(`\0${file}\0`).update(told(path.join(ROOT, file)));
  return hash.digest('hex').slice(0, 24);
};
const stampOf = (files) =>
  digest(files, (file) => {
    const { size, mtimeNs, ctimeNs, ino } = statSync(file, { bigint: true });
    return `${size} ${mtimeNs} ${ctimeNs} ${ino}`;
  });

/** Writes a file so that others find all of it or none. */
function put(file, text) {
  const half = `${file}.${hostname()}-${process.pid}`;
  writeFileSync(half, text);
  renameSync(half, file);
}
const tried = (action, otherwise) => {
  try {
    return action();
  } catch {
    return otherwise;
  }
};

/** The name of this state of the sources; its stamp beside it, so that the next start need not read them. */
function keyOf(files, stamp) {
  const known = path.join(CACHE, 'sources.json');
  const last = tried(() => JSON.parse(readFileSync(known, 'utf8')), {});
  if (last.stamp === stamp && /^[0-9a-f]{24}$/.test(last.key)) return last.key;
  const key = digest(files, readFileSync);
  tried(() => {
    mkdirSync(CACHE, { recursive: true });
    put(known, JSON.stringify({ stamp, key }));
  });
  return key;
}

/** Says in a bundle's folder that this process runs it. */
function use(folder) {
  const mark = path.join(folder, USERS, `${hostname()} ${process.pid}`);
  const marked = tried(() => writeFileSync(mark, '') === undefined, false);
  if (marked) process.once('exit', () => tried(() => rmSync(mark)));
}
/** Whether a process may still run a bundle; of those on other machines nobody knows before a month is over. */
const isUsed = (folder) =>
  readdirSync(path.join(folder, USERS)).some((user) => {
    const [host, pid] = user.split(' ');
    if (host !== hostname()) return Date.now() - statSync(path.join(folder, USERS, user)).mtimeMs < 30 * 86_400_000;
    try {
      return process.kill(Number(pid), 0);
    } catch (error) {
      return error.code === 'EPERM';
    }
  });
/** Removes bundles of a command that are older than the last ones and that nobody runs, and what was left half made. */
function prune(command) {
  const named = (start) =>
    readdirSync(CACHE)
      .filter((name) => name.startsWith(start) && /^[0-9a-f]{24}/.test(name.slice(start.length)))
      .map((name) => path.join(CACHE, name));
  const lastUse = (folder) => tried(() => statSync(path.join(folder, USERS)).mtimeMs, 0);
  const old = named(`${command}-`).sort((a, b) => lastUse(b) - lastUse(a));
  for (const folder of old.slice(KEPT).filter((folder) => !tried(() => isUsed(folder), false))) {
    // first out of the way: nobody shall find a part of it
    const gone = path.join(CACHE, `.${path.basename(folder)}`);
    renameSync(folder, gone);
    rmSync(gone, { recursive: true, force: true });
  }
  for (const folder of named(`.${command}-`))
    if (lastUse(folder) < Date.now() - 3_600_000) rmSync(folder, { recursive: true, force: true });
}

/** A plugin of esbuild: what modules ask `import.meta` of their place is the place of their source. */
const sourcePlaces = {
  name: 'places of sources',
  setup({ onLoad }) {
    onLoad({ filter: /\.ts$/ }, ({ path: file }) => {
      const place = { url: pathToFileURL(file).href, filename: file, dirname: path.dirname(file) };
      const contents = readFileSync(file, 'utf8');
      // packages are found from the bundle as from the source
      return { contents: contents.replace(/\bimport\.meta\b(?!\.resolve)/g, `(${JSON.stringify(place)})`), loader: 'ts' };
    });
  },
};

/** The files of a command's bundle, in memory. @throws BrokenSource */
async function compile(entry, folder) {
  const { build, stop } = await import('esbuild');
  try {
    const { outputFiles } = await build({
      ...OPTIONS,
      entryPoints: [entry],
      outdir: folder,
      sourcemap: 'linked',
      sourcesContent: false,
      write: false,
      logLevel: 'silent',
      absWorkingDir: ROOT,
      plugins: [sourcePlaces],
    });
    return outputFiles;
  } catch (error) {
    const told = (error.errors ?? []).filter(({ location }) => location);
    if (told.length === 0) throw error;
    const lines = told.map(({ text, location: { file, line, column } }) => `${file}:${line}:${column + 1}: ${text}`);
    throw new BrokenSource(lines.join('\n'));
  } finally {
    await stop();
  }
}

/**
 * The file to run in place of a command's source; undefined where no bundle can be kept or the file is none of the rooms.
 * @throws BrokenSource
 */
export async function bundle(entry) {
  const files = sources();
  const name = path.relative(ROOT, entry).split(path.sep).join('/');
  if (!files.includes(name)) return undefined;
  const command = name.replace(/\.ts$/, '').replaceAll('/', '+');
  const program = `${path.basename(name, '.ts')}.mjs`;
  // a source that is saved while it is read belongs to no known state: once more
  for (let tries = 0; tries < 3; tries++) {
    const stamp = stampOf(files);
    const key = keyOf(files, stamp);
    const folder = path.join(CACHE, `${command}-${key}`);
    use(folder);
    if (existsSync(path.join(folder, program))) return path.join(folder, program);
    // maps name sources relative to their folder, which lies as deep as this one
    const half = path.join(CACHE, `.${command}-${key}.${hostname()}.${process.pid}`);
    try {
      // where nothing can be written nothing is compiled
      mkdirSync(path.join(half, USERS), { recursive: true });
      for (const { path: file, contents } of await compile(entry, half)) writeFileSync(file, contents);
      if (stampOf(files) !== stamp) continue;
      renameSync(half, folder);
    } catch (error) {
      if (error instanceof BrokenSource) throw error;
      // another process was quicker, or the disk is full
      if (!existsSync(path.join(folder, program))) return undefined;
    } finally {
      tried(() => rmSync(half, { recursive: true, force: true }));
    }
    use(folder);
    tried(() => prune(command));
    return path.join(folder, program);
  }
  return undefined;
}
