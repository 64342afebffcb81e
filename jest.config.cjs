const { availableParallelism } = require('node:os');

/** The tests import `@bluefly/ossa` as a user does: the package's own exports lead to the built dist/. */
module.exports = {
  testEnvironment: 'node',
  roots: ['<rootDir>/__test__', '<rootDir>/dist'],
  testMatch: ['<rootDir>/__test__/**/*.test.{ts,js}'],
  transform: { '^.+\\.ts$|/dist/.+\\.js$': '<rootDir>/scripts/jest-transform.cjs' },
  // The tests wait for servers more than they compute: one more than there are cores.
  maxWorkers: availableParallelism() + 1,
  testTimeout: 30_000,
  // The page runs in a browser, where its tests do not count lines.
  collectCoverageFrom: ['<rootDir>/dist/**/*.js', '!<rootDir>/dist/dashboard/**'],
  coverageDirectory: '<rootDir>/coverage/typescript',
  coverageReporters: ['text-summary', 'lcov', 'json-summary'],
  coverageThreshold: { global: { lines: 80, branches: 80, functions: 80 } },
};
