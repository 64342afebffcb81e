/** What the dashboard page computes without a browser. */
import { absolute, ago, bytes, clock, count, figure, millis, percent, plural, rate, shortened, span } from '../ts/dashboard/format';
import { pieces } from '../ts/dashboard/highlight';
import { PARTS, reason } from '../ts/dashboard/reason';
import { changed, formatPlace, parsePlace, parseSort, VIEWS } from '../ts/dashboard/route';

describe('figures', () => {
  test.each([
    [count(0), '0'],
    [count(1234567.4), '1,234,567'],
    [figure(0), '0'],
    [figure(0.001), '<0.01'],
    [figure(0.126), '0.13'],
    [figure(9.994), '9.99'],
    [figure(48.26), '48.3'],
    [figure(1234.5), '1,235'],
    [rate(12.34), '12.3 /s'],
    [percent(0.5), '0.5 %'],
    [millis(0.42), '0.42 ms'],
    [millis(999), '999 ms'],
    [millis(1500), '1.5 s'],
    [millis(90_000), '1 min 30 s'],
    [bytes(999), '999 B'],
    [bytes(1500), '1.5 kB'],
    [bytes(2_500_000), '2.5 MB'],
    [span(0), '0 s'],
    [span(59_999), '59 s'],
    [span(3_600_000), '1 h'],
    [span(3 * 86_400_000 + 4 * 3_600_000 + 59_000), '3 d 4 h'],
    [plural(1, 'letter'), '1 letter'],
    [plural(0, 'letter'), '0 letters'],
    [plural(1200, 'consumer alive', 'consumers alive'), '1,200 consumers alive'],
    [shortened('abc', 3), 'abc'],
    [shortened('abcd', 3), 'ab…'],
  ])('%s', (shown, wanted) => expect(shown).toBe(wanted));

  test('missing ones are a dash', () => {
    for (const value of [null, undefined, Number.NaN, Number.POSITIVE_INFINITY])
      for (const show of [count, figure, rate, percent, millis, bytes, span]) expect(show(value)).toBe('–');
  });
});

describe('times', () => {
  const now = Date.parse('2026-03-04T05:06:07Z');

  test.each([
    [now, 'now'],
    [now - 999, 'now'],
    [now - 1000, '1 s ago'],
    [now - 119_000, '1 min ago'],
    [now - 86_400_000 * 3, '3 d ago'],
    [now + 61_000, 'in 1 min'],
  ])('%d', (time, wanted) => expect(ago(time, now)).toBe(wanted));

  test('as ISO 8601, and none at all', () => {
    expect(ago('2026-03-04T05:06:00Z', now)).toBe('7 s ago');
    expect(absolute('2026-03-04T05:06:07Z')).toMatch(/^2026-03-0[345] \d\d:\d\d:07 [+-]\d\d:\d\d$/);
    expect(new Date(absolute(now).replace(' ', 'T').replace(' ', '')).getTime()).toBe(now);
    expect(clock(now)).toBe(absolute(now).slice(11, 19));
    for (const none of [null, undefined, 'nonsense']) expect([ago(none, now), absolute(none)]).toEqual(['–', '']);
  });
});

describe('why a part is as it is', () => {
  test.each([
    [
      { problems: ['error rate 12 % is beyond 10 %', 'memory 96 % is beyond 95 %'] },
      'error rate 12 % is beyond 10 %; memory 96 % is beyond 95 %',
    ],
    [{ activeAlerts: [{ title: 'High error rate' }, { title: 'Long queue' }] }, 'High error rate; Long queue'],
    [{ connected: false }, 'Redis cannot be reached'],
    [{ redis: { connected: false }, error: 'refused' }, 'refused; Redis cannot be reached'],
    [
      { services: { unhealthyServices: 1, degradedServices: 1 }, routes: [{ circuit: 'open' }] },
      '2 services not well; 1 circuit not closed',
    ],
    [{ failedAgents: 1 }, '1 agent failed'],
    [{ problems: 'nonsense', activeAlerts: null }, ''],
    [null, ''],
  ])('%j', (details, said) => expect(reason(details)).toBe(said));

  test('every part has a name', () => {
    for (const part of ['eventBus', 'redis', 'process', 'serviceRegistry', 'crossProject', 'orchestration', 'monitoring'])
      expect(PARTS[part]).toBeDefined();
  });
});

describe('the address', () => {
  test('says the view and what was chosen, there and back', () => {
    for (const view of VIEWS) {
      const place = { view, parameters: { q: 'a b&c=d?#/ü', sort: '-lag' } };
      expect(parsePlace(formatPlace(place))).toEqual(place);
    }
  });

  test('what it does not know is the overview', () => {
    for (const hash of ['', '#', '#/', '#/nothing?x=1', '#overview/x', 'nonsense', '#/%E0%A4%A'])
      expect(parsePlace(hash)).toEqual({ view: 'overview', parameters: {} });
    expect(parsePlace('#groups?q=a')).toEqual({ view: 'groups', parameters: { q: 'a' } });
  });

  test('changes keep the rest, and leave out what is empty', () => {
    const place = changed({ view: 'groups', parameters: { q: 'a', sort: 'lag' } }, { q: '', selected: 'x' });
    expect(formatPlace(place)).toBe('#/groups?sort=lag&selected=x');
    expect(formatPlace({ view: 'groups', parameters: { q: '' } })).toBe('#/groups');
  });

  test('names a column and its direction', () => {
    expect(parseSort('-lag', 'x')).toEqual({ column: 'lag', down: true });
    expect(parseSort('lag', 'x')).toEqual({ column: 'lag', down: false });
    expect(parseSort('', '-x')).toEqual({ column: 'x', down: true });
    expect(parseSort(undefined, 'x')).toEqual({ column: 'x', down: false });
  });
});

describe('pieces of JSON', () => {
  const kinds = (value: unknown) =>
    pieces(JSON.stringify(value, null, 1))
      .filter(({ kind }) => kind !== 'other')
      .map(({ kind, text }) => [kind, text]);

  test('have their kinds', () => {
    expect(kinds({ a: 'x', 'b"\\': [1, -2.5e-7, true, null], c: 'true: 1, "k": 2' })).toEqual([
      ['key', '"a"'],
      ['string', '"x"'],
      ['key', '"b\\"\\\\"'],
      ['number', '1'],
      ['number', '-2.5e-7'],
      ['word', 'true'],
      ['word', 'null'],
      ['key', '"c"'],
      ['string', '"true: 1, \\"k\\": 2"'],
    ]);
  });

  test('are all of the text, whatever it is', () => {
    for (const text of ['', '"', '{"a', '</script><img src=x>', '\\"', JSON.stringify({ a: '</b>' }), '1e5,-', 'x'.repeat(200_000)])
      expect(
        pieces(text)
          .map((piece) => piece.text)
          .join(''),
      ).toBe(text);
  });
});
