/** The last line of a test run, for machines: `N passed, N failed, N skipped`, alone on a line and without colours. */
import type { Reporter, TestModule } from 'vitest/node';

/** The counts of finished test files; a file or suite that broke outside its tests is one failure. */
export function closingLine(modules: readonly TestModule[], errors: number): string {
  const count = { passed: 0, failed: errors, skipped: 0 };
  for (const module of modules) {
    for (const test of module.children.allTests()) {
      const { state } = test.result();
      // a test that never ended was stopped with its file
      count[state === 'pending' ? 'failed' : state]++;
    }
    const broken = [module, ...module.children.allSuites()].filter((suite) => suite.errors().length > 0);
    count.failed += broken.length;
  }
  return `${count.passed} passed, ${count.failed} failed, ${count.skipped} skipped`;
}

export default class ClosingLine implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], errors: readonly unknown[]): void {
    process.stdout.write(`\n${closingLine(modules, errors.length)}\n`);
  }
}
