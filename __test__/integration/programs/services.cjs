/**
 * HTTP services, one a port, that behave as the test tells them. The argument is JSON: { ports }. Messages:
 * - { id, behave: { <n>: <behaviour> } } with behaviour
 *   - 'ok', 'degraded': 200, and a body that says so
 *   - 'unreadable': 200 with a body that is no JSON
 *   - '500'
 *   - 'hang': never answers
 *   - 'refuse': takes no connection
 *   - 'slow': as 'ok' after 150 ms
 *   - 'flap': '500' and 'ok' in turn
 *   - 'garbage': what is no HTTP
 *   - 'redirect': to /trap at another host
 *   - 'endless': a body without an end
 *   It answers when that is so.
 * - { id, probes: true }: answers { times, together, trapped, beside }: of each service when it was asked at /health and how many such
 *   probes it had at once at most; how often somebody was at /trap, and at /beside, which is another service at the same port.
 */
const { createServer } = require('node:http');

const { ports } = JSON.parse(process.argv[2]);
const print = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const CHUNK = Buffer.alloc(16 * 1024, ' ');
const elsewhere = { '/trap': 0, '/beside': 0 };

const services = ports.map((port) => ({ port, behaviour: 'ok', times: [], active: 0, together: 0, server: undefined }));

function say(response, status, body) {
  response.writeHead(status, { 'content-type': 'application/json' }).end(body);
}

function sendWithoutEnd(response) {
  response.writeHead(200, { 'content-type': 'application/json' });
  const more = () => {
    while (!response.destroyed && response.write(CHUNK));
  };
  response.on('drain', more);
  more();
}

function behave(service, response) {
  switch (service.behaviour) {
    case 'degraded':
      return say(response, 200, '{"status":"degraded"}');
    case 'unreadable':
      return say(response, 200, '{"status":"unhealthy"');
    case '500':
      return say(response, 500, '{}');
    case 'hang':
      return;
    case 'slow':
      return setTimeout(() => say(response, 200, '{"status":"ok"}'), 150);
    case 'flap':
      return say(response, service.times.length % 2 === 0 ? 500 : 200, '{}');
    case 'garbage':
      return response.socket.end('SSH-2.0-OpenSSH_9.6\r\n\r\n');
    case 'redirect':
      return response.writeHead(302, { location: `http://localhost:${service.port}/trap` }).end();
    case 'endless':
      return sendWithoutEnd(response);
    default:
      return say(response, 200, '{"status":"ok"}');
  }
}

function handle(service, request, response) {
  response.on('error', () => undefined);
  if (request.url in elsewhere) elsewhere[request.url]++;
  else {
    service.times.push(Date.now());
    service.together = Math.max(service.together, ++service.active);
    response.once('close', () => service.active--);
  }
  behave(service, response);
}

function listen(service) {
  const server = createServer((request, response) => handle(service, request, response));
  service.server = server;
  return new Promise((resolve, reject) => server.once('error', reject).listen(service.port, '127.0.0.1', resolve));
}

async function change(service, behaviour) {
  const takes = service.server !== undefined;
  service.behaviour = behaviour;
  if (behaviour === 'refuse' && takes) {
    const { server } = service;
    service.server = undefined;
    await new Promise((resolve) => {
      server.close(resolve);
      server.closeAllConnections();
    });
  } else if (behaviour !== 'refuse' && !takes) await listen(service);
}

process.on('message', async ({ id, behave: behaviours, probes }) => {
  try {
    if (behaviours) await Promise.all(Object.entries(behaviours).map(([n, behaviour]) => change(services[n], behaviour)));
    const seen = () => ({
      times: services.map(({ times }) => times),
      together: services.map(({ together }) => together),
      trapped: elsewhere['/trap'],
      beside: elsewhere['/beside'],
    });
    print({ answer: id, value: probes ? seen() : true });
  } catch (error) {
    print({ answer: id, error: String(error) });
  }
});

Promise.all(services.map(listen)).then(() => print({ ready: true }));
