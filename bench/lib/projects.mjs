/** Two projects and what they agreed on. */

export const project = (projectId) => ({
  projectId,
  name: projectId,
  namespace: 'bench',
  allowedEventTypes: ['**'],
  allowedTargets: ['*'],
  credentials: { apiKey: `key of ${projectId}`, secret: `only for measuring: ${projectId}` },
});

const text = { type: 'string', minLength: 1 };

/** That `data()` of lib/event.mjs looks as it does. */
export const contract = (eventTypes) => ({
  name: 'users',
  version: '1.0.0',
  sourceProject: 'sender',
  targetProjects: ['receiver'],
  eventTypes,
  schema: {
    type: 'object',
    required: ['userId', 'email', 'number', 'tags', 'nested'],
    additionalProperties: false,
    properties: {
      userId: text,
      email: { type: 'string', format: 'email' },
      number: { type: 'integer', minimum: 0 },
      tags: { type: 'array', items: text },
      nested: { type: 'object', properties: { ok: { type: 'boolean' }, score: { type: 'number' }, note: text } },
    },
  },
  metadata: { description: 'what is measured', author: 'bench', createdAt: new Date(), updatedAt: new Date() },
});
