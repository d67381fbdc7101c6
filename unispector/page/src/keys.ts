// The keys of the page; those of text fields are left alone.

import { useEffect } from 'react';
import { thresholdsOf } from './derive';
import { pick, useList } from './grid';
import { viewed } from './image';
import { judge, openFindings } from './side';
import { change, moveThreshold, now, openImage, set, toggleGood } from './store';
import { step } from './tools';
import { undo } from './undone';

const columnsOf = (): number => Number(document.querySelector<HTMLElement>('[data-columns]')?.dataset.columns ?? 1);
let settling: ReturnType<typeof setTimeout> | undefined;

function nudge(by: number): void {
  const { active, session, moved } = now();
  if (active === null) return;
  const before = thresholdsOf(session, moved)[active] ?? 0.1;
  const step = before < 0.1 || (before === 0.1 && by < 0) ? 0.005 : 0.02;
  const value = Math.round(Math.min(1, Math.max(0.01, before + by * step)) * 1000) / 1000;
  moveThreshold(active, value);
  clearTimeout(settling);
  settling = setTimeout(() => void change({ kind: 'threshold', name: active, value }), 400);
}

function findingStep(by: number): void {
  const open = openFindings();
  const at = open.indexOf(now().finding ?? '');
  const next = open[at < 0 ? (by > 0 ? 0 : open.length - 1) : at + by];
  if (next !== undefined) set({ finding: next, mark: null });
}

function onImage(key: string, names: string[]): boolean {
  const { current, finding, mark, negative, session } = now();
  const tools = { b: 'box', m: 'brush', e: 'eraser', v: 'move' } as const;
  if (key in tools) set({ tool: tools[key as keyof typeof tools] });
  else if (key === 'n') set({ negative: !negative });
  else if (key === 'a') void judge(finding, true);
  else if (key === 'r') void judge(finding, false);
  else if (key === 'arrowleft') step(names, current, -1);
  else if (key === 'arrowright') step(names, current, 1);
  else if (key === 'arrowup') findingStep(-1);
  else if (key === 'arrowdown') findingStep(1);
  else if ((key === 'delete' || key === 'backspace') && mark !== null) void change({ kind: 'remove', mark });
  else if (key === 'd' && current !== null) void change({ kind: 'review', image: current, done: session?.reviewed.includes(current) !== true });
  else if (key === 'f') viewed?.viewport.goHome();
  else if (key === 'escape') escape();
  else return false;
  return true;
}

// What is chosen is let go first, then the image; what is being drawn is the canvas's matter.
function escape(): void {
  const { mark, finding, tool } = now();
  if (tool === 'move' && (mark !== null || finding !== null)) set({ mark: null, finding: null });
  else set({ view: 'grid' });
}

function onGrid(key: string, names: string[]): boolean {
  const { current, chosen } = now();
  const at = current === null ? -1 : names.indexOf(current);
  const by = { arrowleft: -1, arrowright: 1, arrowup: -columnsOf(), arrowdown: columnsOf() }[key];
  if (by !== undefined) {
    const next = names[at < 0 ? 0 : Math.min(names.length - 1, Math.max(0, at + by))];
    if (next !== undefined) set({ current: next });
  } else if (key === 'enter' && current !== null) openImage(current);
  else if (key === ' ' && current !== null) pick(current);
  else if (key === 'c' && chosen.length > 1) set({ view: 'compare' });
  else return false;
  return true;
}

function onAll(event: KeyboardEvent): boolean {
  const { masks, session, brush, view } = now();
  const { key } = event;
  if (/^[1-9]$/.test(key)) set({ active: session?.classes[Number(key) - 1]?.name ?? now().active });
  else if (key.toLowerCase() === 'g' && now().current !== null && view !== 'compare') void toggleGood(now().current ?? '', event.shiftKey);
  else if (key === '[') nudge(-1);
  else if (key === ']') nudge(1);
  else if (key === '?') set({ help: true });
  else if (key === 'h') set({ masks: !masks });
  else if ((key === '+' || key === '=' || key === '*') && view === 'image') {
    if (event.shiftKey && now().tool !== 'move') set({ brush: Math.min(60, brush + 3) });
    else viewed?.viewport.zoomBy(1.4).applyConstraints();
  } else if ((key === '-' || key === '_') && view === 'image') {
    if (event.shiftKey && now().tool !== 'move') set({ brush: Math.max(3, brush - 3) });
    else viewed?.viewport.zoomBy(1 / 1.4).applyConstraints();
  } else if (key === 'Escape' && view === 'compare') set({ view: 'grid' });
  else return false;
  return true;
}

const isText = (target: EventTarget | null): boolean =>
  target instanceof HTMLElement &&
  ['INPUT', 'TEXTAREA', 'SELECT'].includes(target.tagName) &&
  !['checkbox', 'range', 'radio'].includes(target.getAttribute('type') ?? '');

// Menus, sliders and radio buttons have arrows of their own, buttons Enter and Space.
function isUsedBy(target: EventTarget | null, key: string): boolean {
  if (!(target instanceof HTMLElement)) return false;
  if (/^(Arrow|Escape)/.test(key) && document.querySelector('[role=menu]')) return true;
  if (target.tagName === 'BUTTON') return key === 'Enter' || key === ' ';
  const moved = target.getAttribute('role') === 'slider' || ['range', 'radio', 'checkbox'].includes(target.getAttribute('type') ?? '');
  return moved && (/^(Arrow|Page)|^(Home|End)$/.test(key) || key === ' ');
}

export function useKeys(): void {
  const names = useList();
  useEffect(() => {
    const pressed = (event: KeyboardEvent): void => {
      const { view, help, session } = now();
      if (session === null || isText(event.target) || help || document.querySelector('[role=dialog]')) return;
      if (isUsedBy(event.target, event.key)) return;
      const key = event.key.toLowerCase();
      let done: boolean;
      if (event.ctrlKey || event.metaKey) {
        done = key === 'z' || key === 'y';
        if (done) void undo(key === 'y' || event.shiftKey);
      } else if (event.altKey) {
        done = false;
      } else {
        done = (view === 'image' && onImage(key, names)) || (view === 'grid' && onGrid(key, names)) || onAll(event);
      }
      if (done) event.preventDefault();
    };
    window.addEventListener('keydown', pressed);
    return () => window.removeEventListener('keydown', pressed);
  }, [names]);
}
