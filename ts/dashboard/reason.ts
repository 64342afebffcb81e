/** Why a part of the bus is as it is, from its details in healthCheck(). */

/** Parts of the bus by their names there. */
export const PARTS: Readonly<Record<string, string>> = {
  eventBus: 'Event bus',
  redis: 'Redis',
  process: 'This process',
  serviceRegistry: 'Service registry',
  orchestration: 'Orchestration',
  crossProject: 'Projects',
  monitoring: 'Monitoring',
};

/** What of the details says why; '' where nothing does. */
export function reason(details: unknown): string {
  if (typeof details !== 'object' || details === null) return '';
  const {
    error,
    problem,
    reason: why,
    problems,
    activeAlerts,
    redis,
    connected,
    services,
    routes,
    failedAgents,
  } = details as Record<string, any>;
  const said = [error, problem, why, ...list(problems), ...list(activeAlerts).map((alert) => alert?.title)].filter(
    (text): text is string => typeof text === 'string' && text !== '',
  );
  if (redis?.connected === false || connected === false) said.push('Redis cannot be reached');
  const unwell = (services?.unhealthyServices ?? 0) + (services?.degradedServices ?? 0);
  if (unwell > 0) said.push(counted(unwell, 'service', 'not well'));
  const open = list(routes).filter((route) => route?.circuit !== 'closed').length;
  if (open > 0) said.push(counted(open, 'circuit', 'not closed'));
  if (typeof failedAgents === 'number' && failedAgents > 0) said.push(counted(failedAgents, 'agent', 'failed'));
  return [...new Set(said)].join('; ');
}

const list = (value: any): any[] => (Array.isArray(value) ? value : []);
const counted = (number: number, one: string, how: string) => `${number.toLocaleString('en')} ${one}${number === 1 ? '' : 's'} ${how}`;
