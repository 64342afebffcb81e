/** Light and dark: as the system has it, until somebody chooses. early.ts sets what was chosen before anything is seen. */
import { el, setAttribute, setText } from './dom.js';

const KEY = 'ossa-theme';
const system = matchMedia('(prefers-color-scheme: dark)');
const listeners = new Set<() => void>();

const isDark = (): boolean => (document.documentElement.dataset['theme'] ?? (system.matches ? 'dark' : 'light')) === 'dark';

/** The switch. */
export function themeSwitch(): HTMLButtonElement {
  const text = el('span');
  const button = el(
    'button',
    { type: 'button', class: 'quiet theme', onclick: toggle },
    el('span', { class: 'theme-icon', 'aria-hidden': 'true' }),
    text,
  );
  const show = () => {
    const [is, other] = isDark() ? ['dark', 'light'] : ['light', 'dark'];
    setText(text, `Theme: ${is}`);
    setAttribute(button, 'title', `Change to ${other}`);
  };
  onTheme(show);
  show();
  return button;
}

/** `listener` is called when the colours became others. */
export function onTheme(listener: () => void): void {
  listeners.add(listener);
}

function toggle(): void {
  const theme = isDark() ? 'light' : 'dark';
  document.documentElement.dataset['theme'] = theme;
  try {
    localStorage.setItem(KEY, theme);
  } catch {
    // Where nothing may be kept it is chosen for this page only.
  }
  tell();
}

function tell(): void {
  for (const listener of listeners) listener();
}

system.addEventListener('change', tell);
