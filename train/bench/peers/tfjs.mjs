/** The bench's operations in tfjs on its WASM backend: best time of each in ms, as JSON. arguments: MS NAME... */
const tf = await import('@tensorflow/tfjs');
await import('@tensorflow/tfjs-backend-wasm');
await tf.setBackend('wasm');
const [ms, ...names] = process.argv.slice(1);
const random = (...shape) => tf.randomNormal(shape);

const product = (m, n, k) => {
  const [a, b] = [random(m, k), random(k, n)];
  return () => tf.matMul(a, b);
};
const convolution = (batch, c) => {
  const [x, w] = [random(batch, 28, 28, c), random(3, 3, c, c)];
  return () => tf.conv2d(x, w, 1, 'same');
};
const [q, k, v] = [random(8, 784, 40), random(8, 784, 40), random(8, 784, 40)];
const [x, y, z] = [random(4, 1024, 1024), random(4, 1024, 1024), random(4, 1024, 1024)];
const scores = random(6272, 784);
const cases = {
  'dot 512×512×512': product(512, 512, 512),
  'dot 1024×1024×1024': product(1024, 1024, 1024),
  'dot 784×320×320': product(784, 320, 320),
  'dot 1232×320×768': product(1232, 320, 768),
  'dot 784×320×2880': product(784, 320, 2880),
  'conv 3×3 64→64 28² b8': convolution(8, 64),
  'conv 3×3 320→320 28² b1': convolution(1, 320),
  'attention 8×784×40': () => tf.matMul(tf.softmax(tf.mul(tf.matMul(q, k, false, true), 40 ** -0.5)), v),
  'silu(x)·y+z, 4 M': () => tf.add(tf.mul(tf.mul(x, tf.sigmoid(x)), y), z),
  'softmax 6272×784': () => tf.softmax(scores),
};
const found = {};
for (const name of names) {
  const f = cases[name];
  if (!f) continue;
  const once = () => {
    const start = performance.now();
    tf.tidy(() => f().dataSync());
    return performance.now() - start;
  };
  once();
  let best = once();
  for (const end = performance.now() + Number(ms); performance.now() < end; ) best = Math.min(best, once());
  found[name] = best;
}
process.stdout.write(JSON.stringify(found));
