/** The name under which the addon of this machine is built, loaded and packed: `linux-x64-gnu`, `darwin-arm64`, … */

/** musl has no `glibcVersionRuntime` in the process report. */
export const isMusl = () => process.platform === 'linux' && !process.report.getReport().header.glibcVersionRuntime;

/** `<platform>-<arch>`, with the C library where the platform has more than one. */
export function platformName() {
  const abi = { linux: isMusl() ? '-musl' : '-gnu', win32: '-msvc' }[process.platform] ?? '';
  return `${process.platform}-${process.arch}${abi}`;
}

/** The addon's file, in the repository's root and in the platform package alike. */
export const addonFile = (platform = platformName()) => `ossa.${platform}.node`;
