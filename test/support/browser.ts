/**
 * A real browser for pages: Chromium out of a dev dependency, steered by Playwright. No package of the system is needed:
 * libraries and fonts come along, so that a page has the same widths on every machine.
 */
import { writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { type Browser, chromium } from 'playwright-core';
import { unpackedOnce } from './chromium-package.ts';
import { there } from './there.ts';

/** Whether the browser runs on this machine. */
export const browserThere = there(
  'a browser',
  process.platform === 'linux' && process.arch === 'x64',
  `the one of the dev dependencies is for linux-x64, this is ${process.platform}-${process.arch}`,
);

const fontsConf = (folder: string): string =>
  `<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd"><fontconfig><dir>${folder}</dir><cachedir>${folder}</cachedir></fontconfig>\n`;

/** Its own SwiftShader serves WebGPU. */
const WEBGPU = ['--enable-unsafe-webgpu', '--use-webgpu-adapter=swiftshader', '--enable-features=Vulkan,WebGPU'];

/** Starts it, with WebGPU or without a GPU; about a second, and some more when it is unpacked for the first time. */
export async function startBrowser({ webgpu = false } = {}): Promise<Browser> {
  const folder = unpackedOnce('browser', (into, from) => {
    writeFileSync(join(into, 'chromium'), from.file('chromium'), { mode: 0o755 });
    for (const archive of ['al2023', 'fonts', 'swiftshader'])
      for (const [name, bytes] of from.archive(archive))
        if (/\.(so[.\d]*|chk|ttf|json)$/.test(name)) writeFileSync(join(into, basename(name)), bytes, { mode: 0o755 });
  });
  writeFileSync(join(folder, 'fonts.conf'), fontsConf(folder));
  return chromium.launch({
    executablePath: join(folder, 'chromium'),
    // the sandbox of Chromium refuses to run as root; the pages are our own
    args: ['--no-sandbox', ...(webgpu ? WEBGPU : ['--disable-gpu']), '--font-render-hinting=none'],
    env: { ...process.env, LD_LIBRARY_PATH: folder, FONTCONFIG_FILE: join(folder, 'fonts.conf') },
  });
}
