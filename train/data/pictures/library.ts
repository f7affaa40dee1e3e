/** The picture library, loaded when the first picture is: most commands that end early need none. */
import type Sharp from 'sharp';

let loaded: Promise<typeof Sharp> | undefined;

/** sharp. @example (await pictureLibrary())(bytes).metadata() */
export function pictureLibrary(): Promise<typeof Sharp> {
  loaded ??= import('sharp').then(({ default: sharp }) => {
    // libvips keeps decoded pictures for reuse; a data set is read once.
    sharp.cache(false);
    return sharp;
  });
  return loaded;
}
