/** SIGTERM for all agents of the process that want to drain at it: one listener, there only while there are such agents. */

/** Ends what it stands for; never rejects. */
export type Drain = () => Promise<unknown>;

const drains = new Set<Drain>();
let listening = false;
let draining = false;

/** `drain` is called at SIGTERM, until the returned function is. */
export function atSigterm(drain: Drain): () => void {
  drains.add(drain);
  listen();
  return () => {
    drains.delete(drain);
    listen();
  };
}

function listen(): void {
  // While they drain, agents leave one by one; the signal is still ours.
  const wanted = drains.size > 0 || draining;
  if (wanted === listening) return;
  listening = wanted;
  if (wanted) process.on('SIGTERM', onSigterm);
  else process.off('SIGTERM', onSigterm);
}

function onSigterm(): void {
  if (draining) return;
  draining = true;
  void drainAll().then(() => {
    draining = false;
    listen();
    // What the signal does where nobody listens for it. Other listeners got it too, and see to the end of the process.
    if (process.listenerCount('SIGTERM') === 0) process.kill(process.pid, 'SIGTERM');
  });
}

/** Those too that come meanwhile. */
async function drainAll(): Promise<void> {
  while (drains.size > 0) {
    const all = [...drains];
    drains.clear();
    await Promise.all(all.map((drain) => drain()));
  }
}
