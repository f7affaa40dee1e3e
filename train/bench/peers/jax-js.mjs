/** The bench's operations in jax-js on its WASM backend: best time of each in ms, as JSON. arguments: MS NAME... */
const { init, defaultDevice, jit, numpy: np, nn, random } = await import('@jax-js/jax');
await init('wasm');
defaultDevice('wasm');
const [ms, ...names] = process.argv.slice(1);
let seed = 0;
const normal = (...shape) => random.normal(random.key(seed++), shape);

const product = (m, n, k) => [jit((a, b) => np.matmul(a, b)), normal(m, k), normal(k, n)];
const [qkv, big] = [() => normal(8, 784, 40), () => normal(4, 1024, 1024)];
const cases = {
  'dot 512×512×512': () => product(512, 512, 512),
  'dot 1024×1024×1024': () => product(1024, 1024, 1024),
  'dot 784×320×320': () => product(784, 320, 320),
  'dot 1232×320×768': () => product(1232, 320, 768),
  'dot 784×320×2880': () => product(784, 320, 2880),
  'attention 8×784×40': () => [
    jit((q, k, v) => np.matmul(nn.softmax(np.matmul(q, k.transpose([0, 2, 1])).mul(40 ** -0.5), -1), v)),
    qkv(),
    qkv(),
    qkv(),
  ],
  'silu(x)·y+z, 4 M': () => [jit((x, y, z) => nn.silu(x).mul(y).add(z)), big(), big(), big()],
};
const found = {};
for (const name of names) {
  if (!cases[name]) continue;
  const [f, ...inputs] = cases[name]();
  const once = async () => {
    const start = performance.now();
    // arguments are consumed: a reference more for every call
    const y = f(...inputs.map((x) => x.ref));
    await y.blockUntilReady();
    y.dispose();
    return performance.now() - start;
  };
  await once();
  let best = await once();
  for (const end = performance.now() + Number(ms); performance.now() < end; ) best = Math.min(best, await once());
  found[name] = best;
}
process.stdout.write(JSON.stringify(found));
