// The quick start: publish an event, handle it, see a failed delivery tried again.
// `npm run demo` runs it in a checkout. REDIS_URL names a Redis; without it the embedded bus of this process is used.
import { createOSSAEventBus } from '@bluefly/ossa/services/EventBus';
import { ServiceRegistry } from '@bluefly/ossa/services/ServiceRegistry';

const url = process.env.REDIS_URL || 'memory://';

const serviceRegistry = new ServiceRegistry({ redis: { url } });
const eventBus = await createOSSAEventBus(serviceRegistry, { eventBus: { redis: { url } } });

// Publish an event
const eventId = await eventBus.publish('user.created', {
  userId: 'user-123',
  email: 'user@example.com',
  timestamp: new Date(),
});
console.log('Published user.created:', eventId);

// Subscribe to events: a new group starts with what is already there
await new Promise((resolve, reject) => {
  eventBus
    .subscribe('user.created', async (payload) => {
      console.log('User created:', payload.data);
      if (payload.metadata.id === eventId) resolve();
    })
    .catch(reject);
});

// A handler that throws is called again, after a delay
const retry = { maxAttempts: 3, initialDelay: 200 };
const orderId = await eventBus.publish('order.placed', { orderId: 'order-7' }, { retry });
console.log('Published order.placed:', orderId);
await new Promise((resolve, reject) => {
  eventBus.on('event:consumed', ({ eventId }) => eventId === orderId && resolve());
  eventBus
    .subscribe('order.placed', async ({ metadata }) => {
      if (metadata.id !== orderId) return;
      console.log(`Order placed, attempt ${metadata.attempt}`);
      if (metadata.attempt === 1) throw new Error('the warehouse does not answer');
    })
    .catch(reject);
});

const { eventsPublished, eventsConsumed, eventsFailed } = eventBus.getMetrics();
console.log('Done:', { eventsPublished, eventsConsumed, eventsFailed });

await eventBus.shutdown();
await serviceRegistry.close();
