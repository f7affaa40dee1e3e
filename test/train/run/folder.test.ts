/** Run folders: what a new one holds, what is refused in one line, who may use it when several want it. */
import { type ChildProcess, fork, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { FileError } from '../../../models/io/error.ts';
import { canonicalJson, differences } from '../../../train/run/canonical.ts';
import { createRun, openRun, refuseTaken } from '../../../train/run/folder.ts';
import { compiled } from '../../support/compiled.ts';
import { casesOf, patience, soaks } from '../../support/drivers.ts';
import { scratchFolder } from '../../support/run-state.ts';
import { there } from '../../support/there.ts';

const scratch = scratchFolder();
const script = await compiled(path.join(import.meta.dirname, '../../support/run-child.ts'));
const fresh = () => path.join(mkdtempSync(path.join(scratch, 'x-')), 'run');
const locks = (folder: string) => readdirSync(folder).filter((name) => name.startsWith('lock-'));

describe('a new run', () => {
  it('holds its configuration, sorted and exact, and is private', async () => {
    const folder = path.join(fresh(), 'deep/run');
    const run = await createRun(folder, { steps: 3, b: { z: -0, a: [1e-7, 'ü"\n'] }, left: undefined });
    expect(readFileSync(path.join(folder, 'config.json'), 'utf8')).toBe(
      '{\n  "b": {\n    "a": [\n      1e-7,\n      "ü\\"\\n"\n    ],\n    "z": -0\n  },\n  "steps": 3\n}\n',
    );
    expect(run).toMatchObject({ path: folder, resumed: false, config: { steps: 3, b: { a: [1e-7, 'ü"\n'] } } });
    const mode = (name: string) => (statSync(path.join(folder, name)).mode & 0o777).toString(8);
    expect(['..', '.', 'config.json', locks(folder)[0]].map(mode)).toEqual(['700', '700', '600', '600']);
    await run.close();
    await run.close();
    expect(readdirSync(folder)).toEqual(['config.json']);
    const again = await openRun(folder);
    expect(again.run.resumed).toBe(true);
    expect(again.config).toStrictEqual({ steps: 3, b: { z: -0, a: [1e-7, 'ü"\n'] } });
    await again.run.close();
  });
  it('is refused where something is already, and nothing there changes', async () => {
    const folder = fresh();
    await (await createRun(folder, { a: 1 })).close();
    writeFileSync(path.join(folder, 'metrics.jsonl'), '');
    await expect(createRun(folder, { a: 2 })).rejects.toThrow(/^.*run: holds a run already; go on with --resume/);
    expect(readFileSync(path.join(folder, 'config.json'), 'utf8')).toBe('{\n  "a": 1\n}\n');
    const used = fresh();
    mkdirSync(used);
    writeFileSync(path.join(used, 'holiday.jpg'), 'x');
    await expect(createRun(used, {})).rejects.toThrow(/run: is not empty/);
    expect(readdirSync(used)).toEqual(['holiday.jpg']);
    await expect(createRun(path.join(used, 'holiday.jpg'), {})).rejects.toThrow(/holiday.jpg: is not a folder/);
    await expect(createRun(path.join(used, 'holiday.jpg/run'), {})).rejects.toThrow(
      /a part of the path is not a folder/,
    );
    for (const bad of [{ x: { y: Number.NaN } }, { x: { y: () => 1 } }, { x: { y: 1n } }]) {
      const target = fresh();
      await expect(createRun(target, bad)).rejects.toThrow(/^x\.y: .* cannot be written as JSON$/);
      expect(() => statSync(target)).toThrow('ENOENT');
    }
  });
  it('is refused beside a config.json that is no run of ours, which stays as it was', async () => {
    // as diffusers writes them: sorted keys, two blanks
    for (const foreign of ['{\n  "_class_name": "UNet2DConditionModel",\n  "a": 1\n}\n', '{}', '[1]', 'not json']) {
      const folder = fresh();
      mkdirSync(folder);
      writeFileSync(path.join(folder, 'config.json'), foreign);
      await expect(createRun(folder, { a: 2 })).rejects.toThrow(/run: is not empty; choose another folder$/);
      await expect(refuseTaken(folder, { a: 2 })).rejects.toThrow(/run: is not empty; choose another folder$/);
      expect(readFileSync(path.join(folder, 'config.json'), 'utf8')).toBe(foreign);
      expect(readdirSync(folder)).toEqual(['config.json']);
    }
  });
  it('that fails before its first step takes itself back, with the folders made for it and no others', async () => {
    const folder = path.join(fresh(), 'deep/er');
    const run = await createRun(folder, { a: 1 });
    writeFileSync(path.join(folder, 'split.json'), '{}');
    writeFileSync(path.join(folder, 'metrics.jsonl'), '');
    await run.abandon();
    expect(() => statSync(path.dirname(path.dirname(folder)))).toThrow('ENOENT');
    const own = fresh();
    mkdirSync(own);
    await (await createRun(own, { a: 1 })).abandon();
    expect(readdirSync(own)).toEqual([]);
  });
  it.each(['metrics.jsonl', 'best.safetensors'])('that has %s keeps everything', async (name) => {
    const folder = fresh();
    const run = await createRun(folder, { a: 1 });
    writeFileSync(path.join(folder, name), 'x');
    await run.abandon();
    expect(readdirSync(folder).sort()).toEqual([name, 'config.json'].sort());
    const again = await openRun(folder);
    await again.run.abandon();
    expect(readdirSync(folder).sort()).toEqual([name, 'config.json'].sort());
  });
  it('may take the place of one that failed before its first step', async () => {
    const folder = fresh();
    await (await createRun(folder, { base: 'mistyped' })).close();
    writeFileSync(path.join(folder, 'split.json'), '{}');
    const run = await createRun(folder, { base: 'right' });
    expect(JSON.parse(readFileSync(path.join(folder, 'config.json'), 'utf8'))).toEqual({ base: 'right' });
    await run.close();
  });
  it('takes a folder where a process died before it wrote anything of use', async () => {
    const folder = fresh();
    mkdirSync(folder);
    writeFileSync(path.join(folder, `.config.json.tmp-${process.pid}-0123456789ab`), '{');
    writeFileSync(path.join(folder, 'lock-2147483647-1-00000000'), 'held\n');
    const run = await createRun(folder, {});
    expect(readdirSync(folder).sort()).toEqual(['config.json', ...locks(folder)]);
    expect(locks(folder)).toHaveLength(1);
    await run.close();
  });
});

describe('going on', () => {
  it('names what is wrong in one line', async () => {
    const folder = fresh();
    await expect(openRun(folder)).rejects.toThrow(/run: no such folder$/);
    mkdirSync(folder);
    await expect(openRun(folder)).rejects.toThrow(/run: is not the folder of a run: it has no config.json/);
    const config = path.join(folder, 'config.json');
    for (const [text, message] of [
      ['', /config.json: not valid JSON/],
      ['{"a":1,"a":2}', /config.json: a: duplicate key "a"/],
      [' '.repeat(2 ** 20 + 1), /has 1048577 bytes, at most 1048576 are read/],
    ] as const) {
      writeFileSync(config, text);
      const error = await openRun(folder).catch((reason) => reason);
      expect(error).toBeInstanceOf(FileError);
      expect(error.message).toMatch(message);
      expect(locks(folder)).toEqual([]);
    }
    await expect(openRun(config)).rejects.toThrow(/is not a folder/);
  });
  it('sweeps what killed writers left, here and below, and follows no links', async () => {
    const folder = fresh();
    await (await createRun(folder, {})).close();
    const outside = fresh();
    mkdirSync(outside);
    const dead = spawnSync('true').pid;
    for (const place of [folder, path.join(folder, 'checkpoints'), path.join(folder, 'samples/first'), outside]) {
      mkdirSync(place, { recursive: true });
      writeFileSync(path.join(place, `.x.tmp-${dead}-0123456789ab`), 'x');
      writeFileSync(path.join(place, `.x.tmp-${process.pid}-0123456789ab`), 'x');
    }
    symlinkSync(outside, path.join(folder, 'link'));
    await (await openRun(folder)).run.close();
    const left = ['.', 'checkpoints', 'samples', 'samples/first'].map((name) => readdirSync(path.join(folder, name)));
    expect(left).toEqual([['checkpoints', 'config.json', 'link', 'samples'], [], ['first'], []]);
    expect(readdirSync(outside)).toHaveLength(2);
  });
});

describe.runIf(there('/proc', existsSync('/proc/self/stat'), 'the lock reads when a process began'))('the lock', () => {
  it('is not fooled by a number that was given away again', async () => {
    const folder = fresh();
    await (await createRun(folder, {})).close();
    // The parent runs, but was not started at tick 1; and another boot's processes are gone.
    writeFileSync(path.join(folder, `lock-${process.ppid}-1-${'0'.repeat(8)}`), 'held\n');
    const { run } = await openRun(folder);
    expect(locks(folder)).toHaveLength(1);
    expect(locks(folder)[0]).toContain(`lock-${process.pid}-`);
    await expect(openRun(folder)).rejects.toThrow(/is in use by this process already/);
    await run.close();
  });
  it('is that of a running process even before it was settled', async () => {
    const folder = fresh();
    const first = await createRun(folder, {});
    const boot = locks(folder)[0].split('-')[3];
    await first.close();
    // As proc(5) has it, read here in another way: from the end of the line.
    const fields = readFileSync('/proc/self/stat', 'utf8').split(') ')[1].split(' ');
    expect(locks(folder)).toEqual([]);
    const parent = readFileSync(`/proc/${process.ppid}/stat`, 'utf8');
    const start = parent.slice(parent.lastIndexOf(')') + 2).split(' ')[19];
    expect(Number(start)).toBeLessThanOrEqual(Number(fields[19]));
    for (const text of ['held\n', '']) {
      writeFileSync(path.join(folder, `lock-${process.ppid}-${start}-${boot}`), text);
      await expect(openRun(folder)).rejects.toThrow(`is in use by process ${process.ppid}`);
    }
    expect(locks(folder)).toHaveLength(1);
  });
});

describe('several processes', () => {
  const children: ChildProcess[] = [];
  const start = async (mode = 'rival'): Promise<ChildProcess> => {
    const child = fork(script, [mode], { execArgv: [] });
    await once(child, 'message');
    return child;
  };
  const ask = async (child: ChildProcess, request: object): Promise<string> => {
    const answer = once(child, 'message');
    child.send(request);
    return String((await answer)[0]);
  };
  beforeAll(async () => {
    children.push(...(await Promise.all(Array.from({ length: soaks('races') ? 8 : 4 }, () => start()))));
  }, 120_000);
  afterAll(() => {
    for (const child of children) child.kill('SIGKILL');
  });

  /** Two or more processes at once create a folder, then open it. */
  const race = async (rivals: readonly ChildProcess[]): Promise<void> => {
    const folder = fresh();
    const answers = await Promise.all(rivals.map((child) => ask(child, { create: folder })));
    expect(
      answers.filter((answer) => answer === 'held'),
      answers.join('\n'),
    ).toHaveLength(1);
    for (const answer of answers)
      expect(answer).toMatch(/^held$|^[^\n]*run: (is in use by process \d+|holds a run already)[^\n]*$/);
    const winner = rivals[answers.indexOf('held')];
    expect(readFileSync(path.join(folder, 'config.json'), 'utf8')).toBe(`{\n  "by": ${winner.pid}\n}\n`);
    // The others cannot come in while it has it; when it has left, one of them can.
    const others = rivals.filter((child) => child !== winner);
    expect(
      (await Promise.all(others.map((child) => ask(child, { open: folder })))).every((a) => a.includes('in use')),
    ).toBe(true);
    await ask(winner, { release: folder });
    const second = await Promise.all(rivals.map((child) => ask(child, { open: folder })));
    expect(second.filter((answer) => answer === 'held')).toHaveLength(1);
    await Promise.all(rivals.map((child) => ask(child, { release: folder })));
    expect(readdirSync(folder)).toEqual(['config.json']);
  };
  it('race for a folder: exactly one gets it, the rest one line each', {
    timeout: patience('races', 240_000),
  }, async () => {
    for (let n = 0; n < casesOf('races'); n++) await race(children.slice(0, 2 + (n % (children.length - 1))));
  });
  it('would be found out if one of them did not look at the lock', { timeout: 60_000 }, async () => {
    const blind = await start('blind-rival');
    await expect(race([children[0], children[1], blind])).rejects.toThrow();
    blind.kill('SIGKILL');
  });
  it('take over from one that was killed, and only one of them does', {
    timeout: patience('races', 240_000),
  }, async () => {
    for (let n = 0; n < Math.ceil(casesOf('races') / 15); n++) {
      const folder = fresh();
      const victim = await start();
      expect(await ask(victim, { create: folder })).toBe('held');
      expect(await ask(children[0], { open: folder })).toContain(`in use by process ${victim.pid}`);
      victim.kill('SIGKILL');
      await once(victim, 'exit');
      expect(locks(folder)).toHaveLength(1);
      const answers = await Promise.all(children.map((child) => ask(child, { open: folder })));
      expect(
        answers.filter((answer) => answer === 'held'),
        answers.join('\n'),
      ).toHaveLength(1);
      await Promise.all(children.map((child) => ask(child, { release: folder })));
    }
  });
});

describe('canonical JSON', () => {
  it('has one spelling per value and names differences', () => {
    expect(canonicalJson({ b: [true, null, {}], a: { '\u0000': -0, '': [] } })).toBe(
      '{"a":{"":[],"\\u0000":-0},"b":[true,null,{}]}',
    );
    expect(canonicalJson(JSON.parse('{"__proto__":1,"10":2,"9":3}'))).toBe('{"10":2,"9":3,"__proto__":1}');
    expect(differences({ a: { b: 1, c: [1] } }, { a: { b: 1, c: [2] }, d: null })).toEqual([
      ['a.c', '[1]', '[2]'],
      ['d', 'not set', 'null'],
    ]);
    expect(differences({ b: 0, a: [1] }, { a: [1], b: 0 })).toEqual([]);
    const deep = (n: number): object => (n === 0 ? {} : { x: deep(n - 1) });
    expect(() => canonicalJson(deep(64) as Record<string, unknown>)).toThrow('depth above 64');
  });
});
