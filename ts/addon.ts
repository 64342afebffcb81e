/** Finds and loads the native addon: the platform's package first, then a build beside this package. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { OSSAError } from './errors';
import type { NativeAddon } from './native';

let loaded: NativeAddon | undefined;

/** The addon; loaded at the first use, so that importing this package needs none. */
export function addon(): NativeAddon {
  return (loaded ??= load());
}

/** `linux-x64-gnu`, `darwin-arm64`, `win32-x64-msvc` …: the last part of the platform package's name. */
export function triple(): string {
  const { platform, arch } = process;
  if (platform === 'linux') return `linux-${arch}-${isMusl() ? 'musl' : 'gnu'}`;
  if (platform === 'win32') return `win32-${arch}-msvc`;
  return `${platform}-${arch}`;
}

/** Whether this Node was built against musl (Alpine): then its report names no glibc. */
function isMusl(): boolean {
  try {
    const report = process.report as typeof process.report & { excludeNetwork?: boolean };
    // Otherwise the report looks up the names of all open connections, which can take seconds.
    const before = report.excludeNetwork;
    report.excludeNetwork = true;
    const { header } = report.getReport() as unknown as { header: { glibcVersionRuntime?: string } };
    if (before !== undefined) report.excludeNetwork = before;
    return header.glibcVersionRuntime === undefined;
  } catch {
    return existsSync('/etc/alpine-release');
  }
}

function load(): NativeAddon {
  const override = process.env['OSSA_ADDON'];
  if (override !== undefined && override !== '') return require(override) as NativeAddon;
  const name = triple();
  const packageName = `@bluefly/ossa-${name}`;
  const local = join(__dirname, '..', `ossa.${name}.node`);
  const problems: string[] = [];
  for (const candidate of [packageName, local]) {
    try {
      return require(candidate) as NativeAddon;
    } catch (error) {
      if (isMissing(error, candidate)) continue;
      problems.push(`${candidate}: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
  const advice =
    problems.length > 0
      ? `It was found, but did not load: ${problems.join('; ')}`
      : `The package ${packageName} is not installed. It comes as an optional dependency of @bluefly/ossa: install without ` +
        `--no-optional (--omit=optional) on the very platform it runs on, or, if this platform has no package, build the ` +
        `addon from source ('npm run build' in a checkout makes ${`ossa.${name}.node`}).`;
  throw new OSSAError(`The native part of @bluefly/ossa for ${name} could not be loaded. ${advice}`, {
    code: 'ERR_INTERNAL',
    details: { package: packageName, platform: name, ...(problems.length > 0 ? { problems } : {}) },
  });
}

/** Whether `candidate` itself is not there, rather than something that it needs. */
function isMissing(error: unknown, candidate: string): boolean {
  const { code, message } = error as { code?: string; message?: string };
  return code === 'MODULE_NOT_FOUND' && (message ?? '').includes(candidate);
}
