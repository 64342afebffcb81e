/** A TCP proxy before a server that makes a network worse where it is told to. */
import { connect, createServer } from 'node:net';

/** Connections that go by 127.0.0.1:`port` to `target`, a port. */
export async function startProxy(target) {
  const links = new Set();
  /** ms added each way; bytes stand still while `stalled`; a cut waits for so many bytes of one way. */
  const state = { latencyMs: 0, stalled: false, cut: null };
  let cuts = 0;

  const server = createServer((client) => {
    const upstream = connect(target, '127.0.0.1');
    const link = { client, upstream };
    links.add(link);
    link.close = () => {
      links.delete(link);
      client.destroy();
      upstream.destroy();
    };
    for (const socket of [client, upstream]) {
      socket.setNoDelay(true);
      socket.on('error', link.close).on('close', link.close);
    }
    forward(link, client, upstream, 'up');
    forward(link, upstream, client, 'down');
  });

  function forward(link, from, to, way) {
    let last = Promise.resolve();
    link[way] = { resume: () => {} };
    from.on('data', (chunk) => {
      const cut = state.cut?.way === way ? state.cut : null;
      if (cut && (cut.after -= chunk.length) < 0) {
        // What came before the place of the cut passes; then the connection is gone, in the midst of a reply or command.
        const rest = chunk.subarray(0, chunk.length + cut.after);
        state.cut = null;
        cuts++;
        if (rest.length > 0 && to.writable) to.write(rest, link.close);
        else link.close();
        return;
      }
      if (state.latencyMs === 0 && !state.stalled && link[way].queued === undefined) {
        if (!to.write(chunk)) {
          from.pause();
          to.once('drain', () => from.resume());
        }
        return;
      }
      // In order: a chunk waits for the one before it, also when the latency ends meanwhile.
      const due = Date.now() + state.latencyMs;
      link[way].queued = (link[way].queued ?? 0) + 1;
      last = last
        .then(() => later(due))
        .then(() => {
          if (to.writable) to.write(chunk);
          if (--link[way].queued === 0) link[way].queued = undefined;
        });
    });
  }

  let moving = Promise.resolve();
  let release = () => {};
  const later = async (due) => {
    const wait = due - Date.now();
    if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait));
    await moving;
  };

  await new Promise((resolve, reject) => server.once('error', reject).listen(0, '127.0.0.1', resolve));
  const proxy = {
    port: server.address().port,
    cuts: () => cuts,
    slow(ms) {
      state.latencyMs = ms;
    },
    stall() {
      if (state.stalled) return;
      state.stalled = true;
      moving = new Promise((resolve) => {
        release = resolve;
      });
    },
    /** Breaks the connection on which the byte after so many of `way`, 'up' or 'down', comes by. */
    cutAfter(way, bytes) {
      state.cut = { way, after: bytes };
    },
    cutAll() {
      cuts += links.size;
      for (const link of [...links]) link.close();
    },
    heal() {
      state.latencyMs = 0;
      state.cut = null;
      state.stalled = false;
      release();
    },
    async stop() {
      proxy.heal();
      for (const link of [...links]) link.close();
      await new Promise((resolve) => server.close(resolve));
    },
  };
  return proxy;
}
