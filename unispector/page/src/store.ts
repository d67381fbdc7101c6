// The state of the page, and what is derived from it.

import { notifications } from '@mantine/notifications';
import type { ReactNode } from 'react';
import { create } from 'zustand';
import { post, RequestError, request, get as fetchJson } from './api';
import { byImage, listed, thresholdsOf } from './derive';
import type { Change, Job, Result, Run, Session, Start } from './types';

export type Tool = 'move' | 'box' | 'brush' | 'eraser';
export type Show = 'all' | 'with' | 'without' | 'open';
export type Sort = 'suspicious' | 'name' | 'open';

export interface State {
  start: Start | null;
  session: Session | null;
  images: string[];
  stamps: Map<string, string>;
  results: Map<string, Result>;
  run: Run;
  job: Job; // beside the search
  online: boolean;
  locked: boolean; // a token is needed
  moved: Record<string, number>; // thresholds that the server does not know yet
  view: 'grid' | 'image' | 'compare';
  current: string | null;
  order: string[]; // of the images while one is open: what is judged meanwhile does not move it
  chosen: string[]; // images to compare
  tool: Tool;
  negative: boolean; // what is drawn is not the defect
  brush: number; // radius in pixels of the screen
  active: string | null; // class that is drawn
  mark: string | null; // selected
  finding: string | null; // selected
  show: Show;
  sort: Sort;
  only: string | null; // class that is shown
  masks: boolean;
  help: boolean;
}

const IDLE: Run = { state: 'idle', line: '', done: 0, total: 0, key: '' };

const NO_JOB: Job = { number: 0, kind: '', label: '', running: false, done: 0, total: 0, line: '' };

export const useBench = create<State>(() => ({
  start: null,
  session: null,
  images: [],
  stamps: new Map(),
  results: new Map(),
  run: IDLE,
  job: NO_JOB,
  online: true,
  locked: false,
  moved: {},
  view: 'grid',
  current: null,
  order: [],
  chosen: [],
  tool: 'move',
  negative: false,
  brush: 14,
  active: null,
  mark: null,
  finding: null,
  show: 'all',
  sort: 'suspicious',
  only: null,
  masks: true,
  help: false,
}));

export const set = useBench.setState;
export const now = useBench.getState;

// The same line is shown once, as the newest.
export function tell(line: ReactNode, bad = false, goes = true): void {
  const id = typeof line === 'string' ? line : 'linked';
  const shown = { id, message: line, color: bad ? 'red' : 'bench', withBorder: true };
  notifications.hide(id);
  notifications.show(goes ? shown : { ...shown, color: 'orange', autoClose: 20_000 });
}

type Told = (line: string) => void;
const complain: Told = (line) => tell(line, true);

// Runs what may fail, and shows its line.
export async function attempt<T>(work: () => Promise<T>, told: Told = complain): Promise<T | undefined> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof RequestError && error.status === 401) {
      set({ locked: true });
    } else {
      told(error instanceof Error ? error.message : String(error));
    }
    return undefined;
  }
}

export function adopt(session: Session): void {
  const names = session.classes.map((own) => own.name);
  const { active, only, moved, mark } = now();
  const server = new Map(session.classes.map((own) => [own.name, own.threshold]));
  set({
    session,
    active: active !== null && names.includes(active) ? active : (names[0] ?? null),
    only: only !== null && names.includes(only) ? only : null,
    mark: session.marks.some((own) => own.id === mark) ? mark : null,
    moved: Object.fromEntries(Object.entries(moved).filter(([name, value]) => server.get(name) !== value)),
  });
}

let queue: Promise<unknown> = Promise.resolve();

// Changes go one after the other, each to the version that the one before has made.
export function inTurn(send: (version: number) => Promise<Session>, told?: Told): Promise<boolean> {
  const turn = queue.then(async () => {
    const version = now().session?.version;
    if (version === undefined) return false;
    const session = await attempt(async () => {
      try {
        return await send(version);
      } catch (error) {
        if (error instanceof RequestError && error.status === 409) {
          adopt(await fetchJson<Session>('/bench/session'));
        }
        throw error;
      }
    }, told);
    if (session) adopt(session);
    return session !== undefined;
  });
  queue = turn;
  return turn;
}

export const change = (wanted: Change, told?: Told): Promise<boolean> =>
  inTurn((version) => post<Session>('/bench/session', { version, change: wanted }), told);

export function moveThreshold(name: string, value: number): void {
  set({ moved: { ...now().moved, [name]: value } });
}

export const folderOf = (image: string): string => image.slice(0, image.lastIndexOf('/') + 1);

// The folder of an image as it is called, also that of the session itself.
export const folderName = (image: string): string => folderOf(image) || `${now().session?.folder.split('/').at(-1) ?? ''}/`;

// Good images show no defect. With `folder`, all images of its folder that no defect is marked on.
export async function toggleGood(image: string, folder: boolean): Promise<void> {
  const { session, images } = now();
  const good = session?.good.includes(image) !== true;
  if (!folder) {
    await change({ kind: 'good', images: [image], good });
    return;
  }
  const marked = new Set((session?.marks ?? []).filter((own) => !own.negative).map((own) => own.image));
  const beside = images.filter((name) => folderOf(name) === folderOf(image));
  const wanted = beside.filter((name) => !marked.has(name));
  const rest = beside.length - wanted.length;
  if (await change({ kind: 'good', images: wanted, good })) {
    const are = `${wanted.length === 1 ? '1 image' : `${wanted.length} images`} of ${folderName(image)} ${wanted.length === 1 ? 'is' : 'are'}`;
    tell(`${are} ${good ? 'good' : 'not good any more'}${rest ? `; ${rest} with a marked defect left out` : ''}`);
  }
}

// The images in the order of the page.
export const listNow = ({ images, results, session, moved, only, show, sort }: State): string[] =>
  listed({
    images,
    results,
    marks: byImage(session?.marks ?? []),
    reviewed: new Set(session?.reviewed),
    least: thresholdsOf(session, moved),
    only,
    show,
    sort,
  });

export function openImage(image: string): void {
  const order = now().view === 'image' ? now().order : listNow(now());
  set({ view: 'image', current: image, mark: null, finding: null, order });
}

export async function addFiles(files: Iterable<File>): Promise<void> {
  let added = 0;
  for (const file of files) {
    const done = await attempt(() => request('PUT', `/bench/images?name=${encodeURIComponent(file.name)}`, file));
    added += done === undefined ? 0 : 1;
  }
  if (added) {
    const start = await attempt(() => fetchJson<Start>('/bench/start'));
    if (start) set({ start });
    tell(added === 1 ? '1 image added' : `${added} images added`);
  }
}
