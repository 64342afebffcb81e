'use strict';
const { existsSync } = require('node:fs');
const path = require('node:path');

delete process.env.OSSA_ADDON;
const { addon, triple } = require('../../dist/addon');
const { DEFAULT_EVENT_BUS_CONFIG, DEFAULT_SERVICE_REGISTRY_CONFIG } = require('../../dist');

const built = existsSync(path.join(__dirname, '../..', `ossa.${triple()}.node`));

(built ? test : test.skip)('the exported defaults are those of the engine', () => {
  expect(DEFAULT_EVENT_BUS_CONFIG).toEqual(JSON.parse(addon().defaultConfig('eventBus')));
  expect(DEFAULT_SERVICE_REGISTRY_CONFIG).toEqual(JSON.parse(addon().defaultConfig('serviceRegistry')));
});
