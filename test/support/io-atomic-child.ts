/** The process that models/io/atomic.test.ts kills: replaces a file and creates a folder, again and again. */
import path from 'node:path';
import { createFolderAtomic, writeFileAtomic } from '../../models/io/atomic.ts';

const [folder, rounds] = [process.argv[2], Number(process.argv[3])];
for (let round = 1; round <= rounds; round++) {
  const text = `${round}`.repeat(5000);
  await writeFileAtomic(path.join(folder, 'state.txt'), text);
  await createFolderAtomic(path.join(folder, `checkpoint-${round}`), async (temporary) => {
    await writeFileAtomic(path.join(temporary, 'a.txt'), text);
    await writeFileAtomic(path.join(temporary, 'b.txt'), text);
  });
}
