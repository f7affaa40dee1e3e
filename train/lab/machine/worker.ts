/** The worker's entry: the machine behind messages. */
import { labMachine } from './machine.ts';
import { type Port, serve } from './protocol.ts';

serve(globalThis as unknown as Port, labMachine());
