/**
 * What some work costs this process, whatever else the machine does at the time: a bound in seconds of the clock fails on a
 * busy machine for no fault of the program. Work that waits for ever is the test's own timeout's to end.
 */

/** The outcome of `work` and the seconds of CPU (user and system, all threads of this process) it took. */
export async function cpuSeconds<T>(work: () => Promise<T> | T): Promise<readonly [T, number]> {
  const before = process.cpuUsage();
  const value = await work();
  const { user, system } = process.cpuUsage(before);
  return [value, (user + system) / 1e6];
}
