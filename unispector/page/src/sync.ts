// Keeps the page's copy of the server's state up to date, also after a lost connection or a restart.

import { get, RequestError } from './api';
import { adopt, now, set, tell } from './store';
import type { Images, News, Session, Start } from './types';

const pause = (milliseconds: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, milliseconds));

export async function begin(): Promise<void> {
  const start = await get<Start>('/bench/start');
  const known = now().start;
  const fresh = known !== null && known.program !== start.program;
  set({ start, online: true, locked: false });
  if (fresh) tell('UniSpector was started again; the session is as it was saved');
}

async function refetch(): Promise<void> {
  const session = await get<Session>('/bench/session');
  if (now().session === null && session.notice) tell(session.notice, true);
  adopt(session);
}

let listing = 0;
let told = new Set<string>(); // warnings that were shown

async function refetchImages(version: number): Promise<void> {
  if (version === listing) return;
  const images = await get<Images>('/bench/images');
  const before = now().images;
  listing = images.listing;
  const names = new Set(images.names);
  const gone = before.filter((name) => !names.has(name));
  if (gone.length) tell(gone.length === 1 ? `${gone[0]} is gone from the folder` : `${gone.length} images are gone from the folder`);
  if (before.length && images.names.length > before.length - gone.length) {
    const more = images.names.length - before.length + gone.length;
    tell(more === 1 ? 'a new image in the folder' : `${more} new images in the folder`);
  }
  const results = new Map([...now().results].filter(([name]) => names.has(name)));
  set({ images: images.names, stamps: new Map(images.names.map((name, at) => [name, images.stamps[at] ?? ''])), results });
}

function takeIn(news: News): void {
  set({ job: news.job });
  if (!news.results.length) {
    set({ run: news.run });
    return;
  }
  const results = new Map(now().results);
  for (const result of news.results) results.set(result.image, result);
  set({ results, run: news.run });
}

// Asks for news once; returns what to ask with next time.
async function step(after: number, project: string): Promise<[number, string]> {
  if (now().session === null) await refetch();
  const { session, run } = now();
  const news = await get<News>(`/bench/news?after=${after}&version=${session?.version ?? -1}`);
  if (news.project !== project) {
    listing = 0;
    set({ results: new Map() });
    await refetch();
    // After a restart the same folder is open, and the page stays where it was.
    if (project !== '' && now().session?.folder !== session?.folder) set({ images: [], view: 'grid', current: null, chosen: [] });
    return [-1, news.project];
  }
  if (news.run.key === '' && run.key !== '') set({ results: new Map() });
  for (const line of news.messages.filter((own) => !told.has(own))) tell(line, true, false);
  told = new Set(news.messages);
  const listed = listing;
  await refetchImages(news.listing);
  const { job } = now();
  takeIn(news);
  const ended = job.number !== news.job.number || (job.running && !news.job.running);
  if (ended && !news.job.running && news.job.line && job.number > 0) tell(news.job.line, true, false);
  // The prompts, which bring thresholds and advice, have no version of their own.
  const prompted = news.run.key !== run.key || (news.run.state !== run.state && run.state === 'encoding');
  if (news.version !== session?.version || prompted || ended || listing !== listed) await refetch();
  return [news.number, project];
}

// Runs for as long as the page is open.
export async function follow(): Promise<never> {
  let at: [number, string] = [-1, ''];
  for (;;) {
    try {
      if (!now().online || now().start === null) {
        const program = now().start?.program;
        await begin();
        if (now().start?.program !== program) at = [-1, ''];
      }
      if (now().start?.opened === true) {
        at = await step(...at);
      } else {
        await pause(1000);
        set({ start: await get<Start>('/bench/start') });
      }
    } catch (error) {
      const locked = error instanceof RequestError && error.status === 401;
      set({ online: locked, locked });
      await pause(locked ? 700 : 1500);
    }
  }
}
