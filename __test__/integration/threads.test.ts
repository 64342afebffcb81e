/** Worker threads: each has buses of its own, and may end in any way. */
import { endAll, start } from '../support/children';
import { within } from '../support/wait';
import { freshPrefix, redisUrl, stores } from '../support/world';

jest.setTimeout(90_000);
afterEach(endAll);

test.each(stores)(
  'on %s: three workers and the main thread at once; terminate() with an open bus neither hangs nor crashes',
  async (kind) => {
    const prefix = freshPrefix();
    const url = kind === 'memory' ? `memory://${prefix.replace(':', '-')}` : redisUrl();
    const program = start('threads.cjs', { redis: { url, keyPrefix: prefix }, rounds: 3 });
    expect([await within(60_000, 'the program', program.ended), program.stderr()]).toEqual([{ code: 0, signal: null }, '']);
    expect(program.lines).toEqual([{ round: 0, failures: [] }, { round: 1, failures: [] }, { round: 2, failures: [] }, { done: true }]);
  },
);
