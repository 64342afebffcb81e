/** Asking before something is done that cannot be taken back. */
import { el } from './dom.js';

/** What is asked. */
export interface Question {
  readonly title: string;
  readonly text: string;
  /** What the button says that does it. */
  readonly action: string;
  readonly isDangerous?: boolean;
}

/** Whether it is to be done. The focus goes back to where it was. */
export function confirmed({ title, text, action, isDangerous = false }: Question): Promise<boolean> {
  const before = document.activeElement;
  const cancel = el('button', { type: 'button', onclick: () => dialog.close('') }, 'Cancel');
  const act = el('button', { type: 'button', class: isDangerous ? 'danger' : 'primary', onclick: () => dialog.close('yes') }, action);
  const dialog = el(
    'dialog',
    { 'aria-labelledby': 'question-title', 'aria-describedby': 'question-text' },
    el('h2', { id: 'question-title' }, title),
    el('p', { id: 'question-text' }, text),
    el('div', { class: 'buttons' }, cancel, act),
  );
  document.body.append(dialog);
  dialog.showModal();
  cancel.focus();
  return new Promise((resolve) => {
    dialog.addEventListener('close', () => {
      dialog.remove();
      if (before instanceof HTMLElement && before.isConnected) before.focus();
      resolve(dialog.returnValue === 'yes');
    });
  });
}
