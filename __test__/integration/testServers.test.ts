/** The helpers that tests of topologies rely on: a cluster that fails over, sentinels that switch, servers that speak TLS. */
import { connect } from 'node:tls';
import { Authority, extraName, noTls, startTls } from '../support/certificates';
import { TestCluster } from '../support/cluster';
import { TestSentinels } from '../support/sentinel';
import { until } from '../support/wait';

jest.setTimeout(120_000);

test('a master of a cluster is killed, and its replica has the slots', async () => {
  const cluster = await TestCluster.start();
  try {
    const owner = await cluster.owner('a');
    await cluster.call(owner, 'SET', 'a', '1');
    await cluster.call(owner, 'WAIT', 1, 5000);
    const { by } = await cluster.replaced(owner);
    expect(by).toBe(owner + 3);
    await until(async () => (await cluster.owner('a')) === by);
    expect(await cluster.call(by, 'GET', 'a')).toBe('1');
  } finally {
    await cluster.stop();
  }
});

test('sentinels with a password name another master', async () => {
  const all = await TestSentinels.start({ password: 'guarded' });
  try {
    expect((await all.replaced()).by).toBe(1);
  } finally {
    await all.stop();
  }
});

(noTls() === undefined ? test : test.skip)('a server speaks TLS, with clients that have a certificate', async () => {
  const authority = await Authority.make();
  const server = await startTls(authority, { clients: 'certified' });
  try {
    const client = await authority.sign('client');
    const options = { port: server.portOf('--tls-port'), host: '127.0.0.1', servername: extraName, ca: authority.cert };
    const answer = (more: object) =>
      new Promise<string>((resolve) => {
        const socket = connect({ ...options, ...more }, () => socket.write('PING\r\n'));
        socket.on('error', () => resolve('refused'));
        socket.on('data', (data) => {
          socket.destroy();
          resolve(String(data).trim());
        });
      });
    expect(await answer(client)).toBe('+PONG');
    expect(await answer({})).toBe('refused');
  } finally {
    await server.stop();
    authority.end();
  }
});
