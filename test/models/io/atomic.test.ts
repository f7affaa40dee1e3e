/** Atomic writing: nothing half-written after errors and kills, order of system calls, private permissions. */
import { execFileSync, spawnSync } from 'node:child_process';
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { createFolderAtomic, sweepTemporary, writeFileAtomic } from '../../../models/io/atomic.ts';
import { asFileError, FileError, listed, printable } from '../../../models/io/error.ts';
import { makeRunFolder, writeRunFile } from '../../../train/run/atomic.ts';
import { compiled } from '../../support/compiled.ts';
import { casesOf, patience } from '../../support/drivers.ts';
import { there } from '../../support/there.ts';

const scratch = mkdtempSync(path.join(tmpdir(), 'selora-atomic-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));
const fresh = () => mkdtempSync(path.join(scratch, 'x-'));

describe('files', () => {
  it('appear whole, replace the old one, and take streams', async () => {
    const file = path.join(fresh(), 'a.txt');
    await writeFileAtomic(file, 'one');
    await writeFileAtomic(file, async (write) => {
      expect(readFileSync(file, 'utf8')).toBe('one'); // the old one stays until the end
      await write(Buffer.from('tw'));
      await write(Buffer.from('o'));
    });
    expect(readFileSync(file, 'utf8')).toBe('two');
    expect(readdirSync(path.dirname(file))).toEqual(['a.txt']);
  });
  it('keep the old content and leave nothing when the source fails', async () => {
    const file = path.join(fresh(), 'a.txt');
    await writeFileAtomic(file, 'old');
    const failing = writeFileAtomic(file, async (write) => {
      await write(Buffer.from('half'));
      throw new RangeError('no more');
    });
    await expect(failing).rejects.toThrow(RangeError);
    expect(readFileSync(file, 'utf8')).toBe('old');
    expect(readdirSync(path.dirname(file))).toEqual(['a.txt']);
  });
  it('say path and cause in one line', async () => {
    await expect(writeFileAtomic(path.join(scratch, 'no/such/a.txt'), 'x')).rejects.toThrow(
      /no\/such\/a.txt: writing: no such folder$/,
    );
    const folder = fresh();
    mkdirSync(path.join(folder, 'a.txt'));
    await expect(writeFileAtomic(path.join(folder, 'a.txt'), 'x')).rejects.toThrow(/a.txt: writing: is a directory/);
    expect(readdirSync(folder)).toEqual(['a.txt']);
  });
  it('may have the longest name there is', async () => {
    const folder = fresh();
    await writeFileAtomic(path.join(folder, 'ü'.repeat(127)), 'x');
    expect(readdirSync(folder)).toEqual(['ü'.repeat(127)]);
  });
});

describe('folders', () => {
  it('appear at once, replace empty ones only', async () => {
    const target = path.join(fresh(), 'deep/model');
    mkdirSync(target, { recursive: true });
    await createFolderAtomic(target, async (temporary) => {
      expect(readdirSync(target)).toEqual([]);
      writeFileSync(path.join(temporary, 'a'), '1');
    });
    expect(readdirSync(target)).toEqual(['a']);
    await expect(createFolderAtomic(target, async () => undefined)).rejects.toThrow(/exists already and is not empty/);
    await expect(createFolderAtomic(path.join(target, 'a'), async () => undefined)).rejects.toThrow(/is not a folder/);
  });
  it('leave nothing when filling fails', async () => {
    const parent = fresh();
    const failing = createFolderAtomic(path.join(parent, 'model'), async (temporary) => {
      writeFileSync(path.join(temporary, 'a'), '1');
      throw new FileError('weights', '', 'broken');
    });
    await expect(failing).rejects.toThrow('weights: broken');
    expect(readdirSync(parent)).toEqual([]);
  });
});

describe('temporary names', () => {
  it('are swept when their process is gone, and only then', async () => {
    const folder = fresh();
    const dead = spawnSync('true').pid;
    const names = [`.a.txt.tmp-${dead}-0123456789ab`, `.b.txt.tmp-${process.pid}-0123456789ab`, 'c.tmp-1-0123456789ab'];
    for (const name of names) writeFileSync(path.join(folder, name), 'x');
    mkdirSync(path.join(folder, `.model.tmp-${dead}-ba9876543210/inner`), { recursive: true });
    expect([...(await sweepTemporary(folder))].sort()).toEqual([names[0], `.model.tmp-${dead}-ba9876543210`]);
    expect(readdirSync(folder).sort()).toEqual(names.slice(1).sort());
  });
  it('do not follow links', async () => {
    // Whatever lies at the target is replaced, not written through.
    const folder = fresh();
    writeFileSync(path.join(folder, 'precious'), 'keep');
    symlinkSync('precious', path.join(folder, 'a.txt'));
    await writeFileAtomic(path.join(folder, 'a.txt'), 'new');
    expect(readFileSync(path.join(folder, 'precious'), 'utf8')).toBe('keep');
    expect(readFileSync(path.join(folder, 'a.txt'), 'utf8')).toBe('new');
  });
});

describe.skipIf(process.platform === 'win32')('run folders', () => {
  it('are private', async () => {
    const folder = path.join(fresh(), 'runs/first');
    await makeRunFolder(folder);
    await writeRunFile(path.join(folder, 'config.json'), '{}');
    await makeRunFolder(path.join(folder, 'checkpoint'));
    await writeRunFile(path.join(folder, 'checkpoint/state'), 'x');
    const mode = (name: string) => (statSync(path.join(folder, name)).mode & 0o777).toString(8);
    expect(['.', 'config.json', 'checkpoint', 'checkpoint/state'].map(mode)).toEqual(['700', '600', '700', '600']);
  });
});

describe.skipIf(process.platform !== 'linux')('a place where no folder can be made', () => {
  it.each(['/proc/no-such-place/run', '/proc/self/no-such-place', '/dev/null/run'])(
    '%s is told and does not hang',
    { timeout: 10_000 },
    async (folder) => {
      await expect(makeRunFolder(folder)).rejects.toThrow(FileError);
      await expect(createFolderAtomic(folder, async () => undefined)).rejects.toThrow(FileError);
    },
  );
});

describe('messages', () => {
  it('are one printable line', () => {
    expect(new FileError('a\nb', 'c\u001b[31m', 'd\u2028e\u202e').message).toBe(
      'a\\u{a}b: c\\u{1b}[31m: d\\u{2028}e\\u{202e}',
    );
    expect(printable('x'.repeat(400)).length).toBe(301);
    expect(listed(['a', 'b', 'c'], 2)).toBe('a, b and 1 more');
    const cause = Object.assign(new Error('write'), { code: 'ENOSPC' });
    expect(asFileError(cause, 'out').message).toBe('out: no space left on the device');
  });
});

const hasStrace = there('strace', spawnSync('strace', ['-o', '/dev/null', 'true']).status === 0, 'install it');
const node = [process.execPath, await compiled(path.join(import.meta.dirname, '../../support/io-atomic-child.ts'))];

/** After whatever happened: the file is of one round, every checkpoint is complete, leftovers can be swept. */
async function expectWhole(folder: string): Promise<void> {
  await sweepTemporary(folder);
  for (const name of readdirSync(folder)) {
    const files = name === 'state.txt' ? [name] : [`${name}/a.txt`, `${name}/b.txt`];
    for (const file of files) expect(readFileSync(path.join(folder, file), 'utf8')).toMatch(/^(\d)\1{4999}$/);
    expect(name).toMatch(/^(state\.txt|checkpoint-\d)$/);
  }
}

describe.runIf(hasStrace)('under strace', () => {
  it('syncs every file before its rename and every folder after', { timeout: 60_000 }, () => {
    const folder = fresh();
    const log = path.join(scratch, 'log');
    execFileSync('strace', ['-f', '-y', '-o', log, '-e', 'trace=fsync,rename,write,mkdir', ...node, folder, '1']);
    // a call another thread runs into is logged in two halves; the first one has its name and file
    const calls = readFileSync(log, 'utf8')
      .split('\n')
      // making sure that the folder is there fails with EEXIST, which a call logged in halves says in the other half
      .filter((line) => line.includes(folder) && !line.includes(`mkdir("${folder}"`))
      .flatMap((line) => /(fsync|rename|write|mkdir)\((.*?)(?:\) += \d| <unfinished)/.exec(line) ?? [])
      .filter((_, i) => i % 3 !== 0);
    const kinds = calls.filter((_, i) => i % 2 === 0).join(' ');
    // state.txt, then the checkpoint: folder, two files each with its folder, the folder itself, its name, its parent.
    const file = 'write fsync rename fsync';
    expect(kinds).toBe(`${file} mkdir ${file} ${file} fsync rename fsync`);
  });
  it('survives a kill at every rename, fsync and write', { timeout: patience('kill-calls', 240_000) }, async () => {
    const kills = Math.min(8, casesOf('kill-calls') + 1);
    for (let n = 1; n <= kills; n++) {
      for (const call of ['rename', 'fsync'] as const) {
        const folder = fresh();
        const inject = `inject=${call}:signal=KILL:when=${n}`;
        const run = spawnSync(
          'strace',
          ['-f', '-o', '/dev/null', '-e', `trace=${call}`, '-e', inject, ...node, folder, '2'],
          {
            env: { ...process.env, UV_THREADPOOL_SIZE: '1' },
          },
        );
        expect(run.status === 0).toBe(false);
        await expectWhole(folder);
      }
    }
  });
  it('reports a full disk in one line and leaves the old file', { timeout: 120_000 }, async () => {
    for (const [call, error, text] of [
      ['fsync', 'ENOSPC', 'no space left on the device'],
      ['rename', 'EIO', 'input/output error'],
    ] as const) {
      const folder = fresh();
      writeFileSync(path.join(folder, 'state.txt'), '7'.repeat(5000));
      const inject = `inject=${call}:error=${error}:when=1`;
      const run = spawnSync(
        'strace',
        ['-f', '-o', '/dev/null', '-e', `trace=${call}`, '-e', inject, ...node, folder, '1'],
        {
          env: { ...process.env, UV_THREADPOOL_SIZE: '1' },
          encoding: 'utf8',
        },
      );
      expect(run.status).not.toBe(0);
      expect(run.stderr).toContain(text);
      expect(readdirSync(folder)).toEqual(['state.txt']);
      expect(readFileSync(path.join(folder, 'state.txt'), 'utf8')).toBe('7'.repeat(5000));
    }
  });
});
