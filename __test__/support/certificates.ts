/** Certificates made for one test by the openssl program, and servers that speak TLS with them. */
import { execFile, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { BINARY, freePort, TestServer } from './server';

const run = promisify(execFile);

/** A certificate with its key, PEM. */
export interface Identity {
  cert: string;
  key: string;
}

/** A server's name beside those of loopback. */
export const extraName = 'redis.ossa.test';

const CONFIGURATION = `
[req]
distinguished_name = name
prompt = no
x509_extensions = authority
[name]
CN = ossa test
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = CA:FALSE
keyUsage = digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = DNS:localhost, IP:127.0.0.1, DNS:${extraName}
[client]
basicConstraints = CA:FALSE
keyUsage = digitalSignature
extendedKeyUsage = clientAuth
`;
const NEW_KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];

/** Who signs certificates. */
export class Authority {
  readonly #folder = mkdtempSync(join(tmpdir(), 'ossa-test-certificates-'));

  /** A new one, which nobody trusts yet. */
  static async make(): Promise<Authority> {
    const authority = new Authority();
    writeFileSync(authority.#path('openssl.cnf'), CONFIGURATION);
    await authority.#openssl('req', '-x509', ...NEW_KEY, '-keyout', 'ca.key', '-out', 'ca.crt', '-days', '2', '-config', 'openssl.cnf');
    return authority;
  }

  /** Its own certificate: what `ca` is set to. */
  get cert(): string {
    return readFileSync(this.#path('ca.crt'), 'utf8');
  }

  /** A certificate for a server on loopback, or for a client. */
  async sign(kind: 'server' | 'client'): Promise<Identity> {
    await this.#openssl('req', '-new', ...NEW_KEY, '-keyout', `${kind}.key`, '-out', `${kind}.csr`, '-config', 'openssl.cnf');
    const signer = ['-CA', 'ca.crt', '-CAkey', 'ca.key', '-CAcreateserial', '-days', '2', '-extfile', 'openssl.cnf', '-extensions', kind];
    await this.#openssl('x509', '-req', '-in', `${kind}.csr`, '-out', `${kind}.crt`, ...signer);
    const read = (name: string) => readFileSync(this.#path(name), 'utf8');
    return { cert: read(`${kind}.crt`), key: read(`${kind}.key`) };
  }

  /** Removes its files. */
  end(): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }

  #path(name: string): string {
    return join(this.#folder, name);
  }

  #openssl(...args: string[]): Promise<unknown> {
    return run('openssl', args, { cwd: this.#folder });
  }
}

/** A server with a plain port, its own, and one for TLS. */
export async function startTls(authority: Authority, { clients = 'any' }: { clients?: 'any' | 'certified' } = {}): Promise<TestServer> {
  const { cert, key } = await authority.sign('server');
  const args = async () => [
    ...['--tls-port', String(await freePort()), '--tls-ca-cert-file', 'ca.crt', '--tls-cert-file', 'tls.crt', '--tls-key-file', 'tls.key'],
    ...['--tls-auth-clients', clients === 'certified' ? 'yes' : 'no'],
  ];
  return TestServer.start(args, { files: { 'ca.crt': authority.cert, 'tls.crt': cert, 'tls.key': key } });
}

/** Why there are no tests with TLS here; undefined: there are. */
export function noTls(): string | undefined {
  if (spawnSync('openssl', ['version']).status !== 0) return 'there is no openssl program to make certificates with';
  // Without a certificate no server starts: one with TLS misses the certificate, one without misses TLS itself.
  const { stdout, stderr } = spawnSync(BINARY, ['--port', '0', '--tls-port', '1', '--save', ''], { encoding: 'utf8', timeout: 5000 });
  return `${stdout}${stderr}`.includes('tls-cert-file') ? undefined : `${BINARY} is built without TLS`;
}
