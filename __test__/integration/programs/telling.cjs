/** What a registry tells, in short and the same way in all processes. */

/** Hands `say` a line { told, at } for each event: 'registered <name>', '<name> healthy -> unhealthy'; or { failed: <code> }. */
function listen(registry, say) {
  for (const what of ['registered', 'updated', 'unregistered', 'expired'])
    registry.on(`service:${what}`, ({ name }) => say({ told: `${what} ${name}`, at: Date.now() }));
  registry.on('service:health:changed', ({ name, oldStatus, newStatus }) =>
    say({ told: `${name} ${oldStatus} -> ${newStatus}`, at: Date.now() }),
  );
  registry.on('registry:error', ({ code, message }) => say({ failed: `${code} ${message}` }));
}

module.exports = { listen };
