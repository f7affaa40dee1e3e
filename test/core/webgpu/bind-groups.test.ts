/** Bind groups of a replay: made once per combination of buffers, and only for dispatches that bind something new. */
import { expect, test } from 'vitest';
import { type Bindings, rememberBindGroups } from '../../../core/backends/webgpu/bindGroups.ts';
import type { Kernel } from '../../../core/backends/webgpu/kernel.ts';
import type { Pipelines } from '../../../core/backends/webgpu/pipelines.ts';

const buffer = (label: string) => ({ label }) as GPUBuffer;
const kernel: Kernel = { name: 'k', code: '', params: new Uint32Array(4), groups: [1, 1, 1], reads: 1, writes: 1 };
const scratch = buffer('scratch');
/** the position behind those of the arguments */
const SCRATCH = 4;
const bind = (...at: number[]): Bindings => ({
  kernel,
  uniformOffset: 0,
  places: at.map((a) => ({ at: a, offset: 0, size: 16 })),
});

/** what a group binds, as text: the fake device's group is its own description */
const setup = () => {
  let made = 0;
  const device = {
    createBindGroup({ entries }: GPUBindGroupDescriptor) {
      made++;
      return [...entries].map((e) => (e.resource as { buffer: GPUBuffer }).buffer.label).join(' ');
    },
  } as unknown as GPUDevice;
  const pipelines = { layout: () => ({}) } as unknown as Pipelines;
  // state 0 → scratch, scratch → state 1, batch 2 → result 3
  const dispatches = [bind(0, SCRATCH), bind(SCRATCH, 1), bind(2, 3)];
  const groupsFor = rememberBindGroups(device, pipelines, buffer('u'), dispatches);
  return (...table: GPUBuffer[]) => {
    made = 0;
    return { groups: groupsFor([...table, scratch]), made: () => made };
  };
};

test('the same buffers need no new group, and a state that swaps places none from the third run on', () => {
  const run = setup();
  const [a, b, x, y] = ['a', 'b', 'x', 'y'].map(buffer) as [GPUBuffer, GPUBuffer, GPUBuffer, GPUBuffer];
  expect(run(a, b, x, y).made()).toBe(3);
  expect(run(a, b, x, y).made()).toBe(0);
  expect(run(b, a, x, y).made()).toBe(2);
  for (const [p, q] of [
    [a, b],
    [b, a],
    [a, b],
  ] as const) {
    const { groups, made } = run(p, q, x, y);
    expect(made()).toBe(0);
    expect(groups).toEqual([`u ${p.label} scratch`, `u scratch ${q.label}`, 'u x y']);
  }
});

test('one new buffer makes one new group, and the others are found again', () => {
  const run = setup();
  const [a, b, x] = ['a', 'b', 'x'].map(buffer) as [GPUBuffer, GPUBuffer, GPUBuffer];
  run(a, b, x, buffer('y0'));
  for (let i = 1; i < 20; i++) {
    const { groups, made } = run(a, b, x, buffer(`y${i}`));
    expect(made()).toBe(1);
    expect(groups).toEqual(['u a scratch', 'u scratch b', `u x y${i}`]);
  }
});
